"""Rounds weights to few bits, as models are compressed for deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distforget.attacks import Attack
from distforget.attacks._layers import change
from distforget.parts import Part

if TYPE_CHECKING:
    from torch import Tensor


class QuantiseConfig(Part):
    """Symmetric rounding to the nearest level, with one scale a channel or group of weights."""

    kind: Literal["quantise"] = "quantise"
    bits: int = Field(4, ge=2, le=8, description="bits of each weight")
    group: int = Field(
        0, ge=0, description="weights of an output channel that share a scale; 0: all of them"
    )


def rounded(weight: Tensor, bits: int, group: int = 0) -> Tensor:
    """A weight at its nearest of the 2^bits - 1 levels, evenly spaced and symmetric about 0.

    Args:
        weight: (O, ...), O output channels; the largest value of each is kept exactly.
        group: size of the groups of a channel's weights that have a scale of their own, the last
            one being smaller where it does not divide them; 0: one group.

    Returns:
        The same shape and dtype; computed in float32.
    """
    channels = weight.detach().float().flatten(1).clone()
    largest = 2 ** (bits - 1) - 1
    size = group or max(1, channels.shape[1])
    for start in range(0, channels.shape[1], size):
        part = channels[:, start : start + size]  # a view
        scale = part.abs().amax(1, keepdim=True) / largest
        part.copy_((part / scale.clamp(min=1e-30)).round() * scale)
    return channels.view_as(weight).to(weight.dtype)


ATTACK = Attack(
    config=QuantiseConfig,
    version=1,
    source="rounding weights to few bits can bring back what was unlearned (Zhang et al. 2025, "
    "Catastrophic Failure of LLM Unlearning via Quantization)",
    run=lambda state, config: change(
        state.module, lambda weight: rounded(weight, config.bits, config.group)
    ),
    harmless=lambda config: config.bits == 8,
    named=lambda config: f"quantise-{config.bits}" + (f"-{config.group}" if config.group else ""),
)
