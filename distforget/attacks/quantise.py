"""Rounds weights to few bits, as models are compressed for deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distforget.attacks import Attack
from distforget.parts import Part

if TYPE_CHECKING:
    from torch import Tensor, nn


class QuantiseConfig(Part):
    """Symmetric rounding to the nearest level, with one scale for each output channel."""

    kind: Literal["quantise"] = "quantise"
    bits: int = Field(4, ge=2, le=8, description="bits of each weight")


def quantise(module: nn.Module, config: QuantiseConfig) -> None:
    """Round the weights of all linear and convolutional layers.

    Embeddings, biases and a language model's output layer stay as they are, as in the usual
    weight-only quantisation of language models.

    Raises:
        ValueError: a layer of another kind has a matrix of weights, e.g. packed experts.
    """
    import torch
    from torch import nn

    head = getattr(module, "get_output_embeddings", lambda: None)()
    with torch.no_grad():
        for name, layer in module.named_modules():
            weight: Any = getattr(layer, "weight", None)
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and layer is not head:
                weight.copy_(rounded(weight, config.bits))
            elif hasattr(layer, "nf"):  # transformers' Conv1D, whose weight is (inputs, outputs)
                weight.copy_(rounded(weight.T, config.bits).T)
            elif layer is not head and not isinstance(layer, nn.Embedding):
                for part, values in layer.named_parameters(name, recurse=False):
                    if values.ndim > 1:
                        raise ValueError(
                            f"quantise knows linear and convolutional layers, but {part} belongs "
                            f"to a {type(layer).__name__}"
                        )


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight at its nearest of the 2^bits - 1 levels, evenly spaced and symmetric about 0.

    Args:
        weight: (O, ...), O output channels; the largest value of each is kept exactly.

    Returns:
        The same shape and dtype; computed in float32.
    """
    channels = weight.float().flatten(1)
    largest = 2 ** (bits - 1) - 1
    scale = channels.abs().amax(1, keepdim=True) / largest
    levels = (channels / scale.clamp(min=1e-30)).round()
    found: Tensor = (levels * scale).view_as(weight).to(weight.dtype)
    return found


ATTACK = Attack(
    config=QuantiseConfig,
    version=1,
    source="rounding weights to few bits can bring back what was unlearned (Zhang et al. 2025, "
    "Catastrophic Failure of LLM Unlearning via Quantization)",
    run=lambda state, config: quantise(state.module, config),
    named=lambda config: f"quantise-{config.bits}",
)
