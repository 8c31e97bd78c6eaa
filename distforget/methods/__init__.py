"""Finds the methods of this folder and turns a name such as GA_KLN into something to run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distforget.methods.base import Method, MethodConfig, Terms
from distforget.study import MethodChoice, UsageError

if TYPE_CHECKING:
    from torch import Tensor

REGULARISERS: dict[str, Callable[[Terms], Tensor | None]] = {
    "": lambda terms: None,
    "KLN": lambda terms: terms.retain_kl(),
    "GDN": lambda terms: terms.retain_nll(),
}


@cache
def families() -> dict[str, Method[Any]]:
    """The families by name: each module of this folder that has a METHOD."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "base"):
            method = importlib.import_module(f"{__name__}.{path.stem}").METHOD
            found[method.name] = method
    return found


def names() -> list[str]:
    """Every method name that a study may use: family, or family and regulariser."""
    return [f"{f}_{r}" if r else f for f in families() for r in REGULARISERS]


@dataclass(frozen=True)
class ResolvedMethod:
    """A family with a regulariser and checked settings."""

    name: str
    method: Method[Any]
    regulariser: str
    config: MethodConfig

    def loss(self, terms: Terms) -> Tensor:
        """Scalar loss to minimise: the family's, plus retain_weight times the regulariser."""
        loss = self.method.forget(terms, self.config)
        retain = REGULARISERS[self.regulariser](terms)
        return loss if retain is None else loss + self.config.retain_weight * retain

    def payload(self) -> dict[str, object]:
        """What of this method decides a cell's result (goes into its key)."""
        return {
            "family": self.method.name,
            "version": self.method.version,
            "regulariser": self.regulariser,
            "config": self.config.model_dump(mode="json"),
        }


def resolve(choice: MethodChoice) -> ResolvedMethod:
    """The method that a study names.

    Raises:
        UsageError: unknown name or setting, or a setting of the wrong type.
    """
    family, _, regulariser = choice.name.partition("_")
    if family not in families() or regulariser not in REGULARISERS:
        raise UsageError(f"methods: unknown method {choice.name!r}; known: {', '.join(names())}")
    method = families()[family]
    try:
        config = method.config.model_validate(dict(choice.settings))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(method.config.model_fields))
        raise UsageError(
            f"methods: {choice.name}: setting {setting!r}: {first['msg']}; known settings: {known}"
        ) from error
    return ResolvedMethod(choice.name, method, regulariser, config)
