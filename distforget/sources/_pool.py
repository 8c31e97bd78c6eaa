"""The images of a source with their classes, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distforget.errors import UsageError

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

CHANNELS = {"L": 1, "RGB": 3}
"""Channels of the Pillow modes that are read."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Distinct images with their classes, in the order of their source."""

    pixels_NHWC: Bytes
    """Grey (C = 1) or colour (C = 3), 0 to 255."""
    labels_N: Numbers
    """Classes 0 to K-1, each there at least once."""
    source_index_N: Numbers
    """Position in the source, copies of earlier images counted."""
    where: str
    """What messages call the source."""


def make_pool(pixels_NHWC: npt.NDArray[Any], labels_N: npt.NDArray[Any], where: str) -> Pool:
    """A pool of all images but those that equal an earlier one, pixel by pixel.

    A copy among the never-trained images would not be never trained on; so copies are not drawn.

    Raises:
        UsageError: pixels or labels are of a wrong type, shape or range.
    """
    _check_pixels(pixels_NHWC, where)
    _check_labels(labels_N, len(pixels_NHWC), where)
    seen: dict[bytes, int] = {}
    for index, pixels_HWC in enumerate(pixels_NHWC):
        seen.setdefault(blake2b(pixels_HWC.tobytes(), digest_size=16).digest(), index)
    first_N = np.fromiter(seen.values(), np.int64, len(seen))
    return Pool(pixels_NHWC[first_N], labels_N[first_N].astype(np.int64), first_N, where)


def _check_pixels(pixels: npt.NDArray[Any], where: str) -> None:
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"{where}: images are {pixels.dtype}, expected uint8 (0 to 255); convert those of 0 to "
            "1 with (images * 255).round().astype('uint8')"
        )
    if pixels.ndim != 4 or pixels.shape[3] not in CHANNELS.values() or not pixels.size:
        raise UsageError(
            f"{where}: images have the shape {pixels.shape}, expected (N, height, width, channels) "
            "with 1 or 3 channels and at least one image"
        )


def _check_labels(labels: npt.NDArray[Any], images: int, where: str) -> None:
    if labels.shape != (images,):
        raise UsageError(
            f"{where}: labels have the shape {labels.shape}, but there are {images} images; give "
            "one label an image"
        )
    if labels.dtype.kind not in "iu":
        raise UsageError(
            f"{where}: labels are {labels.dtype}, expected integers: class numbers 0 to K-1"
        )
    classes = np.unique(labels)
    wrong = np.flatnonzero(classes != np.arange(len(classes)))
    if len(wrong) or len(classes) < 2:
        found = f"{classes[0]} to {classes[-1]}, {len(classes)} different ones"
        raise UsageError(
            f"{where}: labels are {found}; expected the class numbers 0 to K-1, each at least "
            "once and at least two of them: number the classes anew"
        )


def read_picture(picture: Image.Image, place: str) -> Bytes:
    """The pixels [H, W, C] of a grey or colour picture.

    Raises:
        UsageError: it is of another kind.
    """
    if picture.mode not in CHANNELS:
        raise UsageError(
            f"{place}: its mode is {picture.mode}, expected L (grey) or RGB, 8 bits; convert it "
            "with Pillow: picture.convert('RGB')"
        )
    height, width = picture.height, picture.width
    return np.asarray(picture, np.uint8).reshape(height, width, CHANNELS[picture.mode])


def stack(pictures: Sequence[tuple[str, Bytes]]) -> Bytes:
    """Pictures of one size, each with its place, as one array [N, H, W, C].

    Raises:
        UsageError: two sizes are there.
    """
    first, expected = pictures[0]
    for place, pixels in pictures:
        if pixels.shape != expected.shape:
            raise UsageError(
                f"{place}: it is {_size(pixels)}, but {first} is {_size(expected)}; all images of "
                "a dataset must have one size: resize or convert them"
            )
    return np.stack([pixels for _, pixels in pictures])


def _size(pixels_HWC: Bytes) -> str:
    height, width, channels = pixels_HWC.shape
    return f"{height} x {width} pixels of {channels} channel{'s' * (channels > 1)}"


def channels_last(images: npt.NDArray[Any], place: str) -> npt.NDArray[Any]:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W], with 1 or 3 channels, as [N, H, W, C].

    Raises:
        UsageError: there are other dimensions, or it cannot be told which of them are channels.
    """
    if images.ndim == 3:
        return images[..., None]
    channels = tuple(CHANNELS.values())
    last, first = (images.ndim == 4 and images.shape[axis] in channels for axis in (3, 1))
    if last == first:
        why = "both second and last may be channels" if last else "no dimension is of channels"
        raise UsageError(
            f"{place}: the shape is {images.shape}: {why}; expected (N, H, W), (N, H, W, C) or "
            "(N, C, H, W) with C 1 or 3"
        )
    return images if last else images.transpose(0, 2, 3, 1)


PAPER_NAMES = ("MNIST", "FashionMNIST", "CIFAR10")


def paper_name_of_path(path: str) -> str:
    """The paper's name of the dataset that a path names with its last part; '' for others."""
    plain = re.sub("[^a-z0-9]", "", PurePosixPath(path).stem.lower())
    return next((name for name in PAPER_NAMES if name.lower() == plain), "")
