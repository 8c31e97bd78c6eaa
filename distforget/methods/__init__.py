"""Finds the methods in this folder and resolves names such as GA_KLN."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distforget.errors import UsageError
from distforget.method_choice import EnhancedConfig, MethodChoice
from distforget.methods.base import Method, MethodConfig, Terms
from distforget.sources import Track

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


def reference() -> str:
    """Name of the method that all others are compared with."""
    return next(name for name, method in families().items() if method.is_reference)


def names() -> list[str]:
    """Every method name that a study may use: family, or family and regulariser."""
    return [
        f"{name}_{regulariser}" if regulariser else name
        for name, method in families().items()
        for regulariser in (REGULARISERS if method.forget and not method.finish else ("",))
    ]


@dataclass(frozen=True)
class ResolvedMethod:
    """A family with a regulariser and checked settings, enhanced or not."""

    name: str
    variant: str
    method: Method[Any]
    regulariser: str
    config: Any
    enhanced: EnhancedConfig | None = None

    def loss(self, parts: Sequence[Terms]) -> Tensor:
        """Scalar loss to minimise: a1 * target + a2 * mean over paraphrases + a3 * regulariser.

        Args:
            parts: the terms of the target and of the samples unlearned with it, then those of each
                paraphrase F(x_i) (both enhanced only).

        Source: paper Eq. 7; without enhancement a1 is 1 and there are no paraphrases. With a set
        T(x_i) of samples unlearned with it, the target's term is the mean over x_i and T(x_i).
        """
        assert self.method.forget is not None  # a method without steps has no loss
        found = [self.method.forget(terms, self.config) for terms in parts]
        targets = len(found) - (self.enhanced.paraphrases if self.enhanced else 0)
        loss = _mean(found[:targets])
        if self.enhanced:
            loss = self.enhanced.target_weight * loss
        if self.enhanced and self.enhanced.paraphrases:
            loss = loss + self.enhanced.paraphrase_weight * _mean(found[targets:])
        retain = REGULARISERS[self.regulariser](parts[0])
        return loss if retain is None else loss + self.config.retain_weight * retain

    def saliency(self, parts: Sequence[Terms]) -> Tensor:
        """What a method that trains some weights alone ranks them by: the forget set's NLL."""
        return _mean([terms.target_nll() for terms in parts])

    @property
    def unlearns(self) -> bool:
        """Whether it changes weights; others were retrained, or unlearned elsewhere."""
        return self.method.forget is not None or self.method.edit is not None

    @property
    def retains(self) -> bool:
        """Whether it needs the retain batches."""
        return bool(self.regulariser) or self.method.retains or self.method.edit is not None

    def refuse(self, track: Track, adapters: bool) -> None:
        """Check that it is for a study's track, and for adapters if the study has them.

        Raises:
            UsageError: it is not.
        """
        if self.method.track not in (None, track):
            raise UsageError(
                f"methods: {self.name} is for {self.method.track}, but the data are of {track}; "
                "take it out"
            )
        if self.method.edit and adapters:
            raise UsageError(
                f"methods: {self.name} changes whole weights, but the study has adapters; delete "
                "adapter or the method"
            )

    def payload(self, target: int) -> dict[str, object]:
        """What of this method decides the result of a target's cell (goes into its key)."""
        enhanced = self.enhanced and self.enhanced.model_dump(mode="json")
        if self.enhanced and enhanced:
            enhanced["similar"] = self.enhanced.with_target(target)
        return {
            "family": "" if self.method.starts_from == "elsewhere" else self.method.name,
            "version": self.method.version,
            "regulariser": self.regulariser,
            "config": self.config.model_dump(mode="json"),
            "enhanced": enhanced,
        }


def _mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0]) / len(values)


def given(name: str) -> ResolvedMethod:
    """The method of a model that was unlearned elsewhere: there is nothing to do.

    Args:
        name: what tables call it.
    """
    method = Method(
        name=name, version=1, config=MethodConfig, source="elsewhere", forget=None,
        starts_from="elsewhere",
    )  # fmt: skip
    return ResolvedMethod(name, "plain", method, "", MethodConfig())


def resolve(choice: MethodChoice) -> ResolvedMethod:
    """The method that a study names.

    Raises:
        UsageError: unknown name or setting, or a setting of the wrong type.
    """
    family, _, regulariser = choice.name.partition("_")
    if choice.name not in names():
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
    enhanced = choice.enhanced
    if enhanced and method.forget is None and (enhanced.gamma or enhanced.paraphrases):
        raise UsageError(
            f"methods: {choice.name} takes no steps, so enhanced.gamma and enhanced.paraphrases "
            "must be 0"
        )
    return ResolvedMethod(
        choice.name, choice.variant_name, method, regulariser, config, choice.enhanced
    )
