"""Reads classifiers from state dicts with any names, and their optimiser states."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distforget.errors import UsageError
from distforget.imaging import models
from distforget.imaging.kkt import linear_layers
from distforget.imaging.models import MLP, Classifier, MLPConfig

Shape = tuple[int, int, int]
SAVE = "save it with torch.save(model.state_dict(), path) or safetensors.torch.save_file"
BATCH_NORM_EPSILON = 1e-5
"""Torch's default; state dicts do not say."""


@dataclass(frozen=True)
class Foreign:
    """A classifier that others trained, with notes on how it was read."""

    model: Classifier
    notes: tuple[str, ...]


@dataclass
class _Layer:
    """A linear layer of a state dict."""

    name: str
    weight_OI: Tensor
    bias_O: Tensor | None = None
    norm: str | None = None


def open_classifier(path: Path, shape: Shape | None) -> Foreign:
    """Read a folder of ours, or a state dict of linear layers with ReLU between them.

    Args:
        path: a folder with `model.safetensors` and `config.json`, a .safetensors file, or a file of
            torch.save, whose tensors may lie deeper, e.g. under 'model_state_dict'.
        shape: channels, height and width of the images; None: grey or colour squares.

    Raises:
        UsageError: it cannot be read, or holds layers that the attack cannot invert.
    """
    if path.is_dir():
        return Foreign(models.load(path), ())
    tensors = read_tensors(path)
    exact = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    dtype = torch.float64 if exact else torch.float32
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    layers = _in_order(_linear_layers(tensors, path), path)
    notes = [f"layers {' -> '.join(layer.name or 'unnamed' for layer in layers)}"]
    norms = _fold_norms(layers, tensors, path)
    if norms:
        notes.append(
            f"BatchNorm folded in ({', '.join(norms)}), taken to stand before ReLU: the weights "
            "were not trained in this form, so the attack may read nothing; kinks stay as they are"
        )
    return Foreign(_mlp(layers, shape, path), tuple(notes))


def parse_shape(given: str) -> Shape | None:
    """'1,28,28' as channels, height, width; None where nothing is given.

    Raises:
        UsageError: it is something else.
    """
    if not given:
        return None
    parts = given.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise UsageError(f"--shape {given}: give channels,height,width, e.g. 1,28,28")
    channels, height, width = map(int, parts)
    return channels, height, width


def gradient_of(path: Path, model: MLP) -> MLP:
    """The negative gradient of the training loss in the form of the model, by Adam's first moment.

    A moment averages the last gradients, so at a small learning rate it is the gradient, at any
    step of training. What weight decay added to it is taken off again.

    Args:
        path: torch.save of an Adam or AdamW's state_dict(), or of a checkpoint that holds it.

    Raises:
        UsageError: it is no such state, or of other parameters.
    """
    content = _mappings(_load_torch(path))
    state = next((part for part in content if {"state", "param_groups"} <= set(part)), None)
    entries = [] if state is None else list(state["state"].values())
    if state is None or not entries or not all("exp_avg" in entry for entry in entries):
        raise UsageError(
            f"{path}: holds no first moments of Adam (state -> 0 -> exp_avg); save it with "
            "torch.save(optimizer.state_dict(), path)"
        )
    group, parameters = state["param_groups"][0], list(model.parameters())
    shapes = [[tuple(t.shape) for t in of] for of in ([e["exp_avg"] for e in entries], parameters)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{path}: its moments have the shapes {shapes[0]}, the model's parameters {shapes[1]}: "
            "it belongs to another model"
        )
    coupled = 0.0 if group.get("decoupled_weight_decay") else float(group.get("weight_decay", 0))
    left = MLP(model.config).to(parameters[0])
    with torch.no_grad():
        for to, theta, entry in zip(left.parameters(), parameters, entries, strict=True):
            started = 1 - float(group["betas"][0]) ** float(entry["step"])
            to.copy_(coupled * theta - entry["exp_avg"].to(theta) / started)
    return left


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, in its order where it has one, else in that of names.

    Raises:
        UsageError: it cannot be read, or holds none.
    """
    if path.suffix == ".safetensors":
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path}: cannot be read as safetensors ({error}); {SAVE}") from error
        return {name: found[name] for name in sorted(found, key=_natural)}
    tensors = (
        {str(name): value for name, value in part.items() if isinstance(value, Tensor)}
        for part in _mappings(_load_torch(path))
    )
    found = max(tensors, key=len, default={})
    if not found:
        raise UsageError(f"{path}: holds no tensors by name; {SAVE}")
    return found


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; {SAVE}") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:160]
        raise UsageError(
            f"{path}: not a file of tensors alone ({said}); whole models and other objects are "
            f"not unpickled, since that can run code: {SAVE}"
        ) from error


def _mappings(content: object) -> Iterator[Mapping[Any, Any]]:
    """All nested mappings, outermost first."""
    if isinstance(content, Mapping):
        yield content
        for value in content.values():
            yield from _mappings(value)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts layers.2 before layers.10."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)]


def _linear_layers(tensors: Mapping[str, Tensor], path: Path) -> list[_Layer]:
    layers = []
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        prefix = name.rpartition(".")[0]
        if not tensor.isfinite().all():
            raise UsageError(
                f"{path}: {name} holds NaN or infinity: the training diverged; there is nothing "
                "to read"
            )
        if tensor.ndim > 2:
            raise UsageError(
                f"{path}: {name} is {tuple(tensor.shape)}: convolutions are read from a folder "
                f"with {models.CONFIG} alone (kind cnn), else only linear layers with ReLU are"
            )
        if tensor.ndim == 2:
            bias = tensors.get(f"{prefix}.bias" if prefix else "bias")
            layers.append(_Layer(prefix, tensor, bias))
        elif f"{prefix}.running_var" not in tensors and not _is_bias(name, prefix, tensors):
            raise UsageError(
                f"{path}: {name} is a vector that is neither the bias of a linear layer nor part "
                "of a BatchNorm with running statistics: such a layer cannot be folded in"
            )
    if len(layers) < 2:
        raise UsageError(
            f"{path}: has {len(layers)} linear layer(s), at least 2 are needed; its tensors: "
            f"{', '.join(list(tensors)[:8]) or 'none'}"
        )
    return layers


def _is_bias(name: str, prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    weight = tensors.get(f"{prefix}.weight" if prefix else "weight")
    return name.endswith("bias") and weight is not None and weight.ndim == 2


def _in_order(layers: list[_Layer], path: Path) -> list[_Layer]:
    """Orders layers so that each takes the output of the one before."""

    def chains(found: list[_Layer], left: list[_Layer]) -> list[_Layer] | None:
        if not left:
            return found
        tried = set()
        for layer in left:
            shape = tuple(layer.weight_OI.shape)
            if shape in tried:
                continue
            tried.add(shape)
            if not found or layer.weight_OI.shape[1] == found[-1].weight_OI.shape[0]:
                whole = chains([*found, layer], [other for other in left if other is not layer])
                if whole:
                    return whole
        return None

    ordered = chains([], layers)
    if ordered is None:
        shapes = ", ".join(f"{la.name} {tuple(la.weight_OI.shape)}" for la in layers)
        raise UsageError(
            f"{path}: its linear layers do not follow one another ({shapes}): each must take as "
            "many values as the one before gives"
        )
    return ordered


def _fold_norms(layers: list[_Layer], tensors: Mapping[str, Tensor], path: Path) -> list[str]:
    """Put each BatchNorm into the first hidden layer of its size that has none yet."""
    norms = [n.rpartition(".")[0] for n in tensors if n.rpartition(".")[2] == "running_var"]
    for norm in norms:
        variance_O, mean_O = (tensors[f"{norm}.running_{part}"] for part in ("var", "mean"))
        layer = next(
            (la for la in layers[:-1] if not la.norm and len(la.weight_OI) == len(variance_O)), None
        )
        if layer is None:
            raise UsageError(
                f"{path}: {norm} is a BatchNorm of {len(variance_O)} values, but no hidden layer "
                "of that size is left to fold it into"
            )
        ones = torch.ones_like(variance_O)
        factor_O = tensors.get(f"{norm}.weight", ones) / (variance_O + BATCH_NORM_EPSILON).sqrt()
        bias_O = 0 if layer.bias_O is None else layer.bias_O
        layer.bias_O = factor_O * (bias_O - mean_O) + tensors.get(f"{norm}.bias", 0 * ones)
        layer.weight_OI = factor_O[:, None] * layer.weight_OI
        layer.norm = norm
    return norms


def _mlp(layers: list[_Layer], shape: Shape | None, path: Path) -> MLP:
    biased = [layer.bias_O is not None for layer in layers]
    bias: Literal["first", "all", "none"] | None = None
    if all(biased):
        bias = "all"
    elif not any(biased[1:]):
        bias = "first" if biased[0] else "none"
    elif all(biased[:-1]):  # BatchNorms gave each hidden layer one
        layers[-1].bias_O, bias = torch.zeros(len(layers[-1].weight_OI)), "all"
    if bias is None:
        some = ", ".join(la.name for la in layers if la.bias_O is not None)
        raise UsageError(
            f"{path}: of its linear layers only {some} have a bias; expected all, the first alone, "
            "or none"
        )
    classes = len(layers[-1].weight_OI)
    if classes < 2:
        raise UsageError(f"{path}: has one output; a classifier needs one for each class")
    config = MLPConfig(
        image_shape=shape or _square(layers[0].weight_OI.shape[1], path),
        hidden=tuple(len(layer.weight_OI) for layer in layers[:-1]),
        classes=classes,
        bias=bias,
    )
    if math.prod(config.image_shape) != layers[0].weight_OI.shape[1]:
        raise UsageError(
            f"{path}: its first layer takes {layers[0].weight_OI.shape[1]} values, --shape has "
            f"{math.prod(config.image_shape)}; give channels,height,width"
        )
    model = MLP(config).to(layers[0].weight_OI.dtype)
    with torch.no_grad():
        for to, layer in zip(linear_layers(model), layers, strict=True):
            to.weight.copy_(layer.weight_OI)
            if layer.bias_O is not None:
                to.bias.copy_(layer.bias_O)
    return model


def _square(values: int, path: Path) -> Shape:
    for channels in (1, 3):
        side = math.isqrt(values // channels)
        if channels * side * side == values:
            return channels, side, side
    raise UsageError(
        f"{path}: its first layer takes {values} values, no grey or colour square; give --shape "
        "channels,height,width"
    )
