"""Gaussian noise on hidden states, for enhanced unlearning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distforget.draws import generator_seed
from distforget.errors import UsageError
from distforget.tracks.base import Noise


def draw(
    model: PreTrainedModel, noises: Sequence[Noise | None], sizes: Sequence[int], step: int
) -> dict[int, Tensor]:
    """Noise gamma * xi for each layer that takes any: (B, T, H), 0 on padding and where it is None.

    A row's noise depends on its cell, on the step and on its place among the rows of its cell, not
    on the batch: rows end at the right edge.

    Args:
        noises: of each row; those of a cell are the same object.
        sizes: (B,) tokens of each row.

    Source: paper Eq. 4; xi ~ N(0, sigma^2).
    """
    generators: dict[int, torch.Generator] = {}
    hidden, width = model.config.hidden_size, max(sizes)
    found: dict[int, Tensor] = {}
    for row, (noise, size) in enumerate(zip(noises, sizes, strict=True)):
        if noise is None:
            continue
        if id(noise) not in generators:
            seed = generator_seed(noise.study_seed, *noise.about, step)
            generators[id(noise)] = torch.Generator().manual_seed(seed)
        layer = _layer_number(model, noise.config.layer)
        noise_BTH = found.setdefault(layer, torch.zeros(len(sizes), width, hidden))
        xi_TH = torch.randn(size, hidden, generator=generators[id(noise)])
        noise_BTH[row, width - size :] = noise.config.gamma * noise.config.sigma * xi_TH
    return found


@contextmanager
def added(model: PreTrainedModel, noise: Mapping[int, Tensor]) -> Iterator[None]:
    """Forward passes inside add this noise to the outputs of these layers (0: embeddings)."""
    with ExitStack() as hooks:
        for layer, noise_BTH in noise.items():
            module = model.get_input_embeddings() if layer == 0 else layers_of(model)[layer - 1]
            handle = module.register_forward_hook(_adding(noise_BTH))
            hooks.callback(handle.remove)
        yield


def _adding(noise_BTH: Tensor) -> Any:
    def hook(module: nn.Module, inputs: object, output: Any) -> Any:
        states_BTH = output[0] if isinstance(output, tuple) else output
        noised_BTH = states_BTH + noise_BTH.to(states_BTH)
        return (noised_BTH, *output[1:]) if isinstance(output, tuple) else noised_BTH

    return hook


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers, in order.

    Raises:
        UsageError: it has no such list.
    """
    count = model.config.num_hidden_layers
    module: nn.Module = model
    for inner in module.modules():
        if isinstance(inner, nn.ModuleList) and len(inner) == count:
            return inner
    raise UsageError(f"enhanced: {type(model).__name__} has no list of {count} layers to add noise")


def _layer_number(model: PreTrainedModel, asked: int) -> int:
    """Of the layer asked for; -1 is the middle one."""
    count = int(model.config.num_hidden_layers)
    if asked > count:
        raise UsageError(f"enhanced.layer is {asked}, but the model has {count} layers; lower it")
    return count // 2 if asked == -1 else asked
