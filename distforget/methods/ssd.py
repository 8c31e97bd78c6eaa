"""Selective synaptic dampening: shrinks the weights that matter for the target above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from distforget.frozen import Frozen
from distforget.methods.base import Importance, Method

if TYPE_CHECKING:
    from torch import Generator

    from distforget.methods.base import Weights


class SSDConfig(Frozen):
    """Settings of SSD."""

    selection: float = Field(
        10.0, gt=0, description="alpha: a weight is dampened if it matters so many times as much"
    )
    dampening: float = Field(1.0, gt=0, description="lambda: what is left of it, at most all")


def edit(start: Weights, importance: Importance, config: SSDConfig, draw: Generator) -> Weights:
    """theta * min(lambda * I_retain / I_forget, 1) where I_forget > alpha * I_retain."""
    found = {}
    for name, weights in start.items():
        forget, retain = importance.forget[name], importance.retain[name]
        kept = (config.dampening * retain / forget.clamp(min=1e-30)).clamp(max=1.0)
        chosen = forget > config.selection * retain
        found[name] = weights * kept.where(chosen, kept.new_ones(())).to(weights.dtype)
    return found


METHOD = Method(
    name="SSD",
    version=1,
    config=SSDConfig,
    source="Foster et al. 2024, Fast machine unlearning without retraining through selective "
    "synaptic dampening; the retain batches stand for the training data",
    forget=None,
    edit=edit,
)
