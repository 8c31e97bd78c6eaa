"""The weights that compression changes: those of linear and convolutional layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def change(module: nn.Module, changed: Callable[[Tensor], Tensor]) -> None:
    """Replace the weights of all linear and convolutional layers.

    Embeddings, biases and a language model's output layer stay as they are, as in the usual
    compression of language models.

    Args:
        changed: from weights (O, ...), O output channels, to those of the same shape.

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
                weight.copy_(changed(weight))
            elif hasattr(layer, "nf"):  # transformers' Conv1D, whose weight is (inputs, outputs)
                weight.copy_(changed(weight.T).T)
            elif layer is not head and not isinstance(layer, nn.Embedding):
                for part, values in layer.named_parameters(name, recurse=False):
                    if values.ndim > 1:
                        raise ValueError(
                            "attacks know linear and convolutional layers, but "
                            f"{part} belongs to a {type(layer).__name__}"
                        )
