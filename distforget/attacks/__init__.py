"""Ways to attack a model state, to see whether what it forgot comes back; see :class:`Attack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from distforget.parts import Part, scan
from distforget.sources import Track

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

UNATTACKED = "none"
"""In column `attack` of tables: the model state as unlearning left it."""

C = TypeVar("C", bound=Part)


class Attacked(Protocol):
    """A model state under attack, and what an attacker has."""

    @property
    def module(self) -> nn.Module:
        """The model as it would be deployed: adapters are merged into its layers."""
        ...

    def similar(self) -> pa.Table:
        """The similar samples of the target that was unlearned."""
        ...

    def others(self, count: int) -> pa.Table:
        """Other samples that no question is about, drawn at random; as many as there are."""
        ...

    def nearest(self, count: int) -> pa.Table:
        """Those of the other samples that are most like the target, most alike first."""
        ...

    def another_target(self) -> pa.Table:
        """The target after the one that was unlearned."""
        ...

    def train(self, rows: pa.Table, steps: int, learning_rate: float, batch_size: int) -> None:
        """Take steps of AdamW on the answers of these rows, which come in turn."""
        ...


@dataclass(frozen=True)
class Attack(Generic[C]):
    """A change of a model's weights or of the questions; the same samples are asked again."""

    config: type[C]
    version: int
    source: str
    """What it does and where it is described; `distforget list attacks` prints it."""
    named: Callable[[C], str]
    """What tables call the attack with these settings: words of a to z, 0 to 9, '.' and '-'."""
    run: Callable[[Attacked, C], None] | None = None
    """Changes the weights of the model in place; None: they stay."""
    asks: Callable[[pa.Table, pa.Table, C], pa.Table] | None = None
    """From the samples asked and the whole dataset, the same samples with other questions; None:
    they stay."""
    harmless: Callable[[C], bool] = lambda config: False
    """Whether it teaches nothing about a target and damages little: a score that it moves is no
    good measure."""
    track: Track | None = None
    """The only track that it is for; None: both."""
    of_target: bool = False
    """True if it needs a target that was unlearned: then floor and ceiling are not attacked."""


def attacks() -> Mapping[str, Attack[Any]]:
    """All attacks by kind."""
    return scan(__name__, "ATTACK")


def attack_of(config: C) -> Attack[C]:
    """The attack that a configuration belongs to."""
    return cast("Attack[C]", attacks()[config.kind])


def name_of(config: Part) -> str:
    """What column `attack` of tables calls an attack with these settings."""
    return attack_of(config).named(config)
