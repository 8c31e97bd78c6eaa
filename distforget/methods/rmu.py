"""Representation misdirection: the target's hidden states are pushed to a random direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class RMUConfig(MethodConfig):
    """Settings of RMU."""

    layer: int = Field(
        -1, ge=-1, description="0: the embeddings; l: the output of layer l; -1: the middle layer"
    )
    coefficient: Annotated[float, Search(1.0, 50.0)] = Field(
        6.5, gt=0, description="length of the direction"
    )
    keep: Annotated[float, Search(1.0, 1e3)] = Field(
        100.0, ge=0, description="alpha: factor of the distance of the retain batch's hidden states"
    )
    seed: int = Field(0, ge=0, description="of the direction, which all targets share")


def forget(terms: Terms, config: RMUConfig) -> Tensor:
    """|h(x_f) - c u|^2 + alpha |h(x_r) - h_0(x_r)|^2, means over tokens and units."""
    layer = config.layer
    pushed = losses.steered(terms.target_hidden_NH(layer), config.coefficient, config.seed)
    reference_NH = terms.retain_reference_hidden_NH(layer)
    return pushed + config.keep * losses.mean_squared(terms.retain_hidden_NH(layer), reference_NH)


METHOD = Method(
    name="RMU",
    version=1,
    config=RMUConfig,
    source="Li et al. 2024, The WMDP Benchmark, Eq. 1 and 2; all weights up to the layer are "
    "trained, hidden states are those at answer tokens",
    forget=forget,
    retains=True,
    track="text",
)
