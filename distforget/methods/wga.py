"""Weighted gradient ascent: likely tokens are pushed down more, so that ascent ends by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class WGAConfig(MethodConfig):
    """Settings of WGA."""

    alpha: Annotated[float, Search(0.1, 10.0)] = Field(
        1.0, ge=0, description="power of the probability that weighs a token; 0: GA"
    )


def forget(terms: Terms, config: WGAConfig) -> Tensor:
    """Mean over answer tokens of p^alpha * log p, the first factor being a constant."""
    return losses.weighted_ascent(terms.target_token_logprobs(), lambda p: p**config.alpha)


METHOD = Method(
    name="WGA",
    version=1,
    config=WGAConfig,
    source="Wang et al. 2025, Rethinking LLM Unlearning Objectives: A Gradient Perspective",
    forget=forget,
)
