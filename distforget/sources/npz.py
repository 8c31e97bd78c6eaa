"""Images and labels of a NumPy .npz file, read without unpickling."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from distforget.contents import file_digest
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Source
from distforget.sources._pool import Pool, channels_last, make_pool, paper_name_of_path

KEYS = ("images", "labels")

UNREADABLE = (OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for files that are cut off, damaged, or hold Python objects."""


class NpzConfig(Part):
    """A NumPy file."""

    kind: Literal["npz"] = "npz"
    path: str = Field(min_length=1, description="with images (uint8) and labels")


def read(config: NpzConfig) -> Pool:
    """The images of key `images`, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], and `labels`.

    Raises:
        UsageError: the file, a key, or what a key holds is wrong.
    """
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise UsageError(f"{path}: no such file; correct data.source.path")
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


SOURCE = Source(
    config=NpzConfig,
    version=1,
    source="a NumPy file with images (uint8) and labels",
    track="image",
    similar="mask",
    read_images=read,
    content=lambda config: file_digest(config.path, "data.source.path"),
    unkeyed=("path",),
    paper_name=lambda config: paper_name_of_path(config.path),
)
