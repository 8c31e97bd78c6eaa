"""A folder with one sub-folder of PNG or JPEG files per class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from distforget.contents import path_digests
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Source
from distforget.sources._pool import (
    Bytes,
    Pool,
    make_pool,
    paper_name_of_path,
    read_picture,
    stack,
)

SUFFIXES = (".png", ".jpg", ".jpeg")


class FolderConfig(Part):
    """A folder of pictures."""

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="with one sub-folder of PNG or JPEG files a class")


def read(config: FolderConfig) -> Pool:
    """The images in the order of their sub-folders, and in each of their file names.

    Classes are numbered from 0 in the order of the sub-folders' names: by number if all names are
    numbers, else by alphabet. Names that begin with a dot, and files beside the sub-folders, are
    passed over.

    Raises:
        UsageError: the folder is missing or has no images, or a file in it is no image.
    """
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; correct data.source.path")
    files = [(label, path) for label, (_, paths) in enumerate(listing(root)) for path in paths]
    pixels_NHWC = stack([(str(path), read_file(path)) for _, path in files])
    return make_pool(pixels_NHWC, np.asarray([label for label, _ in files]), str(root))


def listing(root: Path) -> list[tuple[str, list[Path]]]:
    """Each class's name and files, in the order that :func:`read` gives them.

    Raises:
        UsageError: there are none.
    """
    classes = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if all(p.name.isdecimal() for p in classes):
        classes.sort(key=lambda p: (int(p.name), p.name))
    else:
        classes.sort(key=lambda p: p.name)
    if not classes:
        raise UsageError(f"{root}: it has no sub-folders; put the images of each class into one")
    found = []
    for folder in classes:
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        if not files:
            raise UsageError(f"{folder}: it has no images; add some or delete the folder")
        found.append((folder.name, files))
    return found


def read_file(path: Path) -> Bytes:
    """The pixels [H, W, C] of a PNG or JPEG file.

    Raises:
        UsageError: it is none.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: unknown suffix {path.suffix!r}; expected {', '.join(SUFFIXES)}: convert or "
            "move it"
        )
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.load()
            return read_picture(picture, str(path))
    except UsageError:
        raise
    except Exception as error:
        # Pillow's decoders raise many kinds; each means that the file is no image.
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{path}: not a readable image ({said}); replace or delete the file"
        ) from error


SOURCE = Source(
    config=FolderConfig,
    version=1,
    source="a folder with one sub-folder of PNG or JPEG files a class",
    track="image",
    similar="mask",
    read_images=read,
    content=lambda config: path_digests(config.path, "data.source.path"),
    unkeyed=("path",),
    paper_name=lambda config: paper_name_of_path(config.path),
)
