"""Saturation and importance: ascent on tokens that are neither forgotten already nor certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class SatImpConfig(MethodConfig):
    """Settings of SatImp."""

    beta1: Annotated[float, Search(0.5, 10.0)] = Field(
        5.0, ge=0, description="power of p: spares tokens that are forgotten already"
    )
    beta2: Annotated[float, Search(0.1, 5.0)] = Field(
        1.0, ge=0, description="power of 1 - p: spares tokens that any text makes certain"
    )


def forget(terms: Terms, config: SatImpConfig) -> Tensor:
    """Mean over answer tokens of p^beta1 * (1 - p)^beta2 * log p, the weight being a constant."""
    return losses.weighted_ascent(
        terms.target_token_logprobs(), lambda p: p**config.beta1 * (1 - p) ** config.beta2
    )


METHOD = Method(
    name="SatImp",
    version=1,
    config=SatImpConfig,
    source="Yang et al. 2025, Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning",
    forget=forget,
)
