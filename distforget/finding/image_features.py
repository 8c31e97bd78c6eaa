"""Turns images into features whose cosine says how similar they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distforget.contents import path_digests
from distforget.errors import UsageError
from distforget.finding.embedders import EmbedderConfig

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Features = Callable[[Pixels], Floats]
"""From N images [N, H, W, C], 0 to 255, features [N, ...]."""
RESNET = "resnet50-11ad3fa6.pth"
"""torchvision's weights of ResNet-50 in torch's cache of downloads."""
IMAGES_PER_BATCH = 64


def origin(config: EmbedderConfig, field: str) -> dict[str, Any]:
    """What decides the features of an image, for the content key.

    Raises:
        UsageError: there is no such embedder.
    """
    if config.path == "resnet50" and not has_resnet():
        raise UsageError(
            f"{field} resnet50: torch's cache has no {RESNET}; download it from "
            "download.pytorch.org/models to TORCH_HOME/hub/checkpoints, or use pixels"
        )
    if config.path in ("pixels", "resnet50"):
        return {"features": config.path}
    if not Path(config.path).expanduser().is_dir():
        raise UsageError(
            f"{field} {config.path!r}: for images give pixels, resnet50, or the folder of a "
            "classifier (model.safetensors and config.json)"
        )
    return {"files": path_digests(config.path, field)}


def open_features(config: EmbedderConfig, device: str) -> Features:
    """Load an embedder that :func:`origin` has found."""
    if config.path == "pixels":
        return _centred
    if config.path == "resnet50":
        return partial(_resnet_features, _resnet(device), device)
    from distforget.imaging.models import load

    folder = Path(config.path).expanduser()
    return partial(_classifier_features, load(folder).to(device), folder, device)


def _centred(pixels_NHWC: Pixels) -> Floats:
    """Pixels without the mean of their image and channel, so that colour alone is no likeness."""
    scaled_NHWC = pixels_NHWC.astype(np.float32) / 255
    centred: Floats = scaled_NHWC - scaled_NHWC.mean(axis=(1, 2), keepdims=True)
    return centred


def _classifier_features(model: Any, folder: Path, device: str, pixels_NHWC: Pixels) -> Floats:
    """What the last layer of a classifier takes."""
    import torch

    from distforget.imaging.models import MLP

    shape = tuple(np.roll(pixels_NHWC.shape[1:], 1).tolist())
    if shape != model.config.image_shape:
        raise UsageError(
            f"--embedder {folder}: it classifies images of {model.config.image_shape} (channels, "
            f"height, width), these are {shape}"
        )
    last = model.layers[-1] if isinstance(model, MLP) else model.output
    found = []
    hook = last.register_forward_pre_hook(lambda layer, given: found.append(given[0].float().cpu()))
    with torch.inference_mode():
        images = torch.from_numpy(pixels_NHWC.copy()).permute(0, 3, 1, 2).to(device) / 255
        model(images.to(next(model.parameters()).dtype))
    hook.remove()
    vectors: Floats = found[0].numpy()
    return vectors


def _resnet_weights() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / RESNET


def has_resnet() -> bool:
    """Whether torchvision's weights of ResNet-50 lie in torch's cache."""
    return _resnet_weights().is_file()


def _resnet(device: str) -> Any:
    """ResNet-50 without its last layer."""
    import torch
    from torchvision.models import resnet50

    network = resnet50()
    network.load_state_dict(torch.load(_resnet_weights(), weights_only=True))
    network.fc = torch.nn.Identity()
    return network.eval().to(device)


def _resnet_features(network: Any, device: str, pixels_NHWC: Pixels) -> Floats:
    """The 2,048 features before the last layer."""
    import torch
    from torchvision.transforms.functional import normalize, resize

    found = []
    colours_NHWC = np.repeat(pixels_NHWC, 3 // pixels_NHWC.shape[3], 3)
    with torch.inference_mode():
        for start in range(0, len(colours_NHWC), IMAGES_PER_BATCH):
            batch = torch.from_numpy(colours_NHWC[start : start + IMAGES_PER_BATCH])
            images = batch.to(device).permute(0, 3, 1, 2).float() / 255
            images = resize(images, [224, 224], antialias=True)
            images = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
            found.append(network(images).float().cpu().numpy())
    return np.concatenate(found)
