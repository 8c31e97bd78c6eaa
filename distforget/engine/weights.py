"""Stores weights in safetensors files and shares them without copies through Ray."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class SharedTensor:
    """A tensor's bytes as a numpy array, which Ray shares, and its dtype: numpy lacks bfloat16."""

    bytes: np.ndarray
    dtype: str
    shape: tuple[int, ...]


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """Weights by name, tied ones once."""
    return {name: p.detach() for name, p in module.named_parameters()}


def save(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors."""
    save_file({name: t.contiguous().cpu() for name, t in weights.items()}, path)


def put(path: Path) -> ray.ObjectRef[Any]:
    """Put a weights file into the object store, for workers to share."""
    return ray.put(
        {
            name: SharedTensor(
                t.reshape(-1).view(torch.uint8).numpy(), str(t.dtype)[6:], tuple(t.shape)
            )
            for name, t in load_file(path).items()
        }
    )


def get(source: ray.ObjectRef[Any] | Path) -> dict[str, Tensor]:
    """Weights out of a file, or shared ones as read-only tensors: never write to them."""
    if isinstance(source, Path):
        return load_file(source)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {
            name: torch.from_numpy(t.bytes).view(getattr(torch, t.dtype)).reshape(t.shape)
            for name, t in ray.get(source).items()
        }
