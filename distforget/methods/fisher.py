"""Fisher forgetting: noise on each weight, the more the less it matters for what should stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from distforget.frozen import Frozen
from distforget.methods.base import Importance, Method

if TYPE_CHECKING:
    from torch import Generator

    from distforget.methods.base import Weights


class FisherConfig(Frozen):
    """Settings of Fisher."""

    scale: float = Field(1e-4, gt=0, description="(lambda sigma_h^2)^(1/4) of the source")
    least: float = Field(
        1e-10, gt=0, description="of the importance; bounds the noise of what matters for nothing"
    )


def edit(start: Weights, importance: Importance, config: FisherConfig, draw: Generator) -> Weights:
    """theta + scale * F^(-1/4) * n with n ~ N(0, 1) and F the squared gradients of what stays."""
    found = {}
    for name, weights in start.items():
        noise = weights.detach().cpu().float().clone().normal_(generator=draw).to(weights.device)
        spread = importance.retain[name].clamp(min=config.least) ** -0.25
        found[name] = weights + (config.scale * spread * noise).to(weights.dtype)
    return found


METHOD = Method(
    name="Fisher",
    version=1,
    config=FisherConfig,
    source="Golatkar et al. 2020, Eternal Sunshine of the Spotless Net, Eq. 7; the diagonal of the "
    "Fisher information from the retain batches",
    forget=None,
    edit=edit,
)
