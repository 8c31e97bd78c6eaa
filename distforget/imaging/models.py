"""Image classifiers of any size, and their files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distforget.errors import UsageError
from distforget.frozen import Frozen

Activation = Callable[[Tensor], Tensor]
Positive = Annotated[int, Field(ge=1)]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class ClassifierConfig(Frozen):
    """What every classifier has."""

    image_shape: tuple[Positive, Positive, Positive] = Field(
        (1, 28, 28), description="channels, height, width"
    )
    classes: int = Field(10, ge=2)
    bias: Literal["first", "all", "none"] = Field("first", description="layers that have a bias")


class MLPConfig(ClassifierConfig):
    """A multilayer perceptron with ReLU."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Positive, ...] = Field((256, 256), min_length=1, description="layer widths")


class CNNConfig(ClassifierConfig):
    """3 x 3 convolutions of stride 2 with ReLU, then one linear layer."""

    kind: Literal["cnn"] = "cnn"
    channels: tuple[Positive, ...] = Field((32, 64), min_length=1, description="of each layer")


ImageModelConfig: TypeAlias = Annotated[MLPConfig | CNNConfig, Field(discriminator="kind")]


class MLP(nn.Module):
    """Linear layers with an activation between them: (N, C, H, W) to logits (N, K)."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        widths = (math.prod(config.image_shape), *config.hidden, config.classes)
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=_has_bias(config, number))
            for number, (fan_in, fan_out) in enumerate(pairwise(widths))
        )

    def forward(self, images_NCHW: Tensor, activation: Activation = torch.relu) -> Tensor:
        """Logits (N, K); another activation serves attacks, which need a smooth one."""
        inputs_ND = images_NCHW.flatten(1)
        for layer in self.layers[:-1]:
            inputs_ND = activation(layer(inputs_ND))
        logits_NK: Tensor = self.layers[-1](inputs_ND)
        return logits_NK


class CNN(nn.Module):
    """Strided convolutions with an activation after each: (N, C, H, W) to logits (N, K)."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        self.config = config
        depths = (config.image_shape[0], *config.channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(fan_in, fan_out, 3, 2, 1, bias=_has_bias(config, number))
            for number, (fan_in, fan_out) in enumerate(pairwise(depths))
        )
        height, width = config.image_shape[1:]
        for _ in config.channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        features = config.channels[-1] * height * width
        self.output = nn.Linear(features, config.classes, bias=config.bias == "all")

    def forward(self, images_NCHW: Tensor, activation: Activation = torch.relu) -> Tensor:
        """Logits (N, K); another activation serves attacks, which need a smooth one."""
        for convolution in self.convolutions:
            images_NCHW = activation(convolution(images_NCHW))
        logits_NK: Tensor = self.output(images_NCHW.flatten(1))
        return logits_NK


Classifier: TypeAlias = MLP | CNN


def _has_bias(config: ClassifierConfig, layer: int) -> bool:
    return config.bias == "all" or (config.bias == "first" and layer == 0)


def build(config: MLPConfig | CNNConfig, generator: torch.Generator) -> Classifier:
    """A classifier with fresh weights, uniform in +-1/sqrt(fan in), as torch draws them.

    The weights are drawn on the generator's device and stay there.
    """
    model = _skeleton(config)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in layer.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
    return model


def save(model: Classifier, folder: Path) -> None:
    """Write `model.safetensors` and `config.json` into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()},
              folder / WEIGHTS)  # fmt: skip
    (folder / CONFIG).write_text(model.config.model_dump_json(indent=1) + "\n", "utf-8")


def load(folder: Path) -> Classifier:
    """Read what :func:`save` wrote; dtype as in the file, on the CPU.

    Raises:
        UsageError: a file is missing, the configuration is wrong, or the weights do not fit it.
    """
    path = folder / CONFIG
    try:
        config = TypeAdapter[MLPConfig | CNNConfig](ImageModelConfig).validate_json(
            path.read_bytes()
        )
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; a model is a folder that holds {WEIGHTS} and {CONFIG}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise UsageError(
            f"{path}: {where}: {first['msg']}; write it like "
            f"{MLPConfig().model_dump_json(exclude={'bias'})}"
        ) from error
    return load_weights(folder / WEIGHTS, config)


def load_weights(path: Path, config: MLPConfig | CNNConfig) -> Classifier:
    """A classifier of the given sizes with the weights of a safetensors file.

    Raises:
        UsageError: the file cannot be read, does not match the sizes, or holds NaN or infinity.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path}: cannot be read as safetensors ({error}); write it with "
            "safetensors.torch.save_file"
        ) from error
    model = _skeleton(config)
    _check(weights, dict(model.named_parameters()), path)
    model.to(next(iter(weights.values())).dtype)
    model.load_state_dict(weights)
    return model


def _skeleton(config: MLPConfig | CNNConfig) -> Classifier:
    """A classifier whose weights are not set yet."""
    with torch.device("meta"):
        model = MLP(config) if isinstance(config, MLPConfig) else CNN(config)
    return model.to_empty(device="cpu")


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    for name in sorted(expected.keys() - found.keys()):
        raise UsageError(
            f"{path}: has no tensor {name!r}; it holds {', '.join(sorted(found)) or 'none'}: "
            f"correct the layers or the bias in {CONFIG}, or rename the tensors"
        )
    for name in sorted(found.keys() - expected.keys()):
        raise UsageError(
            f"{path}: tensor {name!r} belongs to no layer; the sizes ask for "
            f"{', '.join(sorted(expected))}: correct the layers or the bias in {CONFIG}"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise UsageError(
                f"{path}: {name} is {tuple(tensor.shape)}, but the sizes ask for "
                f"{tuple(expected[name].shape)}; correct image_shape, the widths or classes "
                f"in {CONFIG}"
            )
        if not tensor.is_floating_point():
            raise UsageError(f"{path}: {name} is {tensor.dtype}; save it as torch.float32")
        if not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise UsageError(
                f"{path}: {name} holds {bad} of {tensor.numel()} values that are NaN or infinite: "
                "the training diverged; train again with a lower learning rate"
            )
