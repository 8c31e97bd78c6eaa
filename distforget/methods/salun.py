"""Saliency unlearning: random answers are trained into the weights that matter for the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distforget.methods.base import Method, RandomAnswerConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class SalUnConfig(RandomAnswerConfig):
    """Settings of SalUn."""

    random_answer: Literal["sample", "list", "tokens"] = Field(
        "tokens", description="as many random tokens, or another class; as of GDR"
    )
    share: Annotated[float, Search(0.05, 1.0)] = Field(
        0.5, gt=0, le=1, description="share of the weights that are trained"
    )


def forget(terms: Terms, config: SalUnConfig) -> Tensor:
    """NLL(theta; q, a'): a' is a random answer."""
    return terms.preferred_nll()


METHOD = Method(
    name="SalUn",
    version=1,
    config=SalUnConfig,
    source="Fan et al. 2024, SalUn: gradient-based weight saliency",
    forget=forget,
    trains=lambda config: config.share,
    prefers=True,
)
