"""Ways to attack a model state, to see whether what it forgot comes back; see :class:`Attack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from distforget.parts import Part, scan

if TYPE_CHECKING:
    from torch import nn

UNATTACKED = "none"
"""In column `attack` of tables: the model state as unlearning left it."""

C = TypeVar("C", bound=Part)


@dataclass(frozen=True)
class Attack(Generic[C]):
    """A change of a model's weights, after which the same samples are asked again."""

    config: type[C]
    version: int
    source: str
    """What it does and where it is described; `distforget list attacks` prints it."""
    run: Callable[[nn.Module, C], None]
    """Changes the weights of a model in place. The model is given as it would be deployed:
    adapters are merged into its layers."""
    named: Callable[[C], str]
    """What tables call the attack with these settings: words of a to z, 0 to 9, '.' and '-'."""


def attacks() -> Mapping[str, Attack[Any]]:
    """All attacks by kind."""
    return scan(__name__, "ATTACK")


def attack_of(config: C) -> Attack[C]:
    """The attack that a configuration belongs to."""
    return cast("Attack[C]", attacks()[config.kind])


def name_of(config: Part) -> str:
    """What column `attack` of tables calls an attack with these settings."""
    return attack_of(config).named(config)
