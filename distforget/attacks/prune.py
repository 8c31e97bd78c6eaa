"""Sets small weights to zero, as models are made sparse for deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distforget.attacks import Attack
from distforget.attacks._layers import change
from distforget.parts import Part

if TYPE_CHECKING:
    from torch import Tensor


class PruneConfig(Part):
    """Pruning by magnitude, the same share in each output channel."""

    kind: Literal["prune"] = "prune"
    percent: int = Field(
        30, ge=1, le=99, description="weights of each output channel that become 0"
    )


def pruned(weight: Tensor, percent: int) -> Tensor:
    """A weight (O, ...) without the smallest values of each of its O output channels."""
    channels = weight.detach().flatten(1).clone()
    gone = channels.shape[1] * percent // 100
    smallest = channels.abs().argsort(dim=1, stable=True)[:, :gone]
    return channels.scatter_(1, smallest, 0.0).view_as(weight)


ATTACK = Attack(
    config=PruneConfig,
    version=1,
    source="pruning by magnitude (Han et al. 2015), the same share in each output channel; does "
    "what was hidden in small changes of weights come back?",
    run=lambda state, config: change(state.module, lambda weight: pruned(weight, config.percent)),
    named=lambda config: f"prune-{config.percent}",
)
