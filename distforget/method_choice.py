"""How a study names an unlearning method: its settings, and the enhanced scheme around it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from distforget.frozen import Frozen, Name

PLACEBO = "placebo"
"""Variant of the cells that unlearn an unrelated sample instead of the target."""
SEQUENCE = "in-turn"
"""Variant of the cells that unlearn several targets one after another on the same weights."""
LOW = "enhanced-low"
"""Prefix of variants that are enhanced by noise alone (the paper's low controllability)."""

Scalar = bool | int | float | str


class EnhancedConfig(Frozen):
    """The enhanced scheme around a method (paper section 4.3, Eq. 4-7; a3 is retain_weight).

    Noise gamma * xi, xi ~ N(0, sigma^2), is added to a hidden state in the forward passes of the
    target and its paraphrases. Without paraphrases and regulariser it is the paper's "low
    controllability" form.
    """

    gamma: float = Field(0.618, ge=0, description="factor of the noise")
    sigma: float = Field(1.0, gt=0, description="standard deviation of the noise")
    layer: int = Field(
        -1, ge=-1, description="0: the embeddings; l: the output of layer l; -1: the middle layer"
    )
    paraphrases: int = Field(4, ge=0, description="m, number of paraphrases F(x_i) unlearned too")
    nearest: int = Field(
        0,
        ge=0,
        description="k, the number of most similar training samples unlearned with the target (E6)",
    )
    similar: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = Field(
        (),
        description="ranks of the similar samples that are unlearned with each target, one list a "
        "target; none: no similar sample",
    )
    target_weight: float = Field(1.0, ge=0, description="a1")
    paraphrase_weight: float = Field(1.0, ge=0, description="a2")

    @property
    def unlearns_more(self) -> bool:
        """Whether other training samples are unlearned with the target."""
        return self.nearest > 0 or any(self.similar)

    def with_target(self, target: int) -> tuple[int, ...]:
        """Ranks of the similar samples that are unlearned with a target (from 1)."""
        return self.similar[target - 1] if target <= len(self.similar) else ()


class MethodChoice(Frozen):
    """A method by name, e.g. 'GA_KLN', with settings that differ from its defaults."""

    name: Name
    settings: tuple[tuple[str, Scalar], ...] = ()
    enhanced: EnhancedConfig | None = None
    variant: str = Field(
        "", pattern=r"^[A-Za-z0-9.-]{0,32}$", description="name of this use of the method"
    )
    targets: int = Field(0, ge=0, description="only the first n targets; 0: all")
    models: tuple[Name, ...] = Field((), description="only these models; empty: all")

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("settings"), dict):
            return {**value, "settings": tuple(sorted(value["settings"].items()))}
        return value

    @model_validator(mode="after")
    def _variant_says_what_it_is(self) -> MethodChoice:
        for kept, field in ((PLACEBO, "placebo_targets"), (SEQUENCE, "in_turn")):
            if self.variant == kept:
                raise ValueError(f"variant {kept!r} is kept for {field}; choose another")
        if self.variant and self.variant.startswith("enhanced") != bool(self.enhanced):
            raise ValueError(
                "a variant begins with 'enhanced' where the method is enhanced, and only there"
            )
        if self.variant and self.enhanced and self.variant.startswith(LOW) != self._is_low:
            raise ValueError(
                f"a variant begins with {LOW!r} where nothing is unlearned with the "
                "target, and only there"
            )
        return self

    @property
    def variant_name(self) -> str:
        """The variant as tables hold it: as given, else 'plain' or 'enhanced'."""
        return self.variant or (LOW if self._is_low else "enhanced" if self.enhanced else "plain")

    @property
    def is_plain(self) -> bool:
        """Whether its cells have the variant 'plain'."""
        return self.variant_name == "plain"

    def is_of(self, model: str) -> bool:
        """Whether it is for a model of this name."""
        return not self.models or model in self.models

    @property
    def _is_low(self) -> bool:
        e = self.enhanced
        return e is not None and not (e.paraphrases or e.unlearns_more)
