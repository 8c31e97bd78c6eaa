"""Simple negative preference optimisation: NPO without a reference model, by length of answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class SimNPOConfig(MethodConfig):
    """Settings of SimNPO."""

    beta: Annotated[float, Search(0.5, 5.0)] = Field(2.5, gt=0, description="inverse temperature")
    gamma: float = Field(0.0, description="margin in nats; the larger, the longer it pushes")


def forget(terms: Terms, config: SimNPOConfig) -> Tensor:
    """(2/beta) * log(1 + exp(beta * log p_theta(a|q) / |a| + gamma))."""
    return losses.simnpo(terms.target_token_logprobs(), config.beta, config.gamma)


METHOD = Method(
    name="SimNPO",
    version=1,
    config=SimNPOConfig,
    source="Fan et al. 2024, Simplicity Prevails: Rethinking NPO for LLM Unlearning",
    forget=forget,
)
