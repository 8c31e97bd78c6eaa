"""Images and labels of a NumPy .npz file; nothing in it is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks.image.sources.pool import CHANNELS, Pool, make_pool

KEYS = ("images", "labels")

UNREADABLE = (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files that are cut off, damaged, or hold Python objects."""


def read(config: DatasetConfig) -> Pool:
    """The images of key `images`, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], and `labels`.

    Raises:
        UsageError: the file, a key, or what a key holds is wrong.
    """
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise UsageError(f"{path}: no such file; correct dataset.path")
    images, labels = arrays(path, KEYS)
    return make_pool(channels_last(images, f"{path}: key 'images'"), labels, str(path))


def arrays(path: Path, keys: Sequence[str]) -> list[npt.NDArray[Any]]:
    """The arrays of some keys.

    Raises:
        UsageError: the file or a key cannot be read.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        raise UsageError(f"{path}: not a readable .npz file ({_said(error)}); {FIX}") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UsageError(f"{path}: it holds one array, not a .npz file of several; {FIX}")
    with file:
        return [_array(file, key, path) for key in keys]


FIX = "write it with numpy.savez_compressed(path, images=..., labels=...)"


def _array(file: np.lib.npyio.NpzFile, key: str, path: Path) -> npt.NDArray[Any]:
    if key not in file.files:
        raise UsageError(
            f"{path}: key {key!r} is missing; it has: {', '.join(file.files) or 'none'}; {FIX}"
        )
    try:
        array: npt.NDArray[Any] = file[key]
    except UNREADABLE as error:
        raise UsageError(f"{path}: key {key!r}: cannot be read ({_said(error)}); {FIX}") from error
    return array


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
