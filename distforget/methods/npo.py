"""Negative preference optimisation: gradient ascent that fades as the answer becomes unlikely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class NPOConfig(MethodConfig):
    """Settings of NPO."""

    beta: Annotated[float, Search(0.02, 2.0)] = Field(
        0.1, gt=0, description="inverse temperature; small: closer to GA"
    )


def forget(terms: Terms, config: NPOConfig) -> Tensor:
    """(2/beta) * log(1 + (p_theta(a|q) / p_theta0(a|q))^beta)."""
    return losses.npo(terms.target_logprobs_B(), terms.target_reference_logprobs_B(), config.beta)


METHOD = Method(
    name="NPO",
    version=1,
    config=NPOConfig,
    source="paper section 4.2, methods NPO_KLN and NPO_GDN; Zhang et al. 2024, Eq. 3",
    forget=forget,
)
