"""A folder with one sub-folder of PNG or JPEG files a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks.image.sources.pool import Bytes, Pool, make_pool, read_picture, stack

SUFFIXES = (".png", ".jpg", ".jpeg")


def read(config: DatasetConfig) -> Pool:
    """The images in the order of their sub-folders, and in each of their file names.

    Classes are numbered from 0 in the order of the sub-folders' names: by number if all names are
    numbers, else by alphabet. Names that begin with a dot, and files beside the sub-folders, are
    passed over.

    Raises:
        UsageError: the folder is missing or has no images, or a file in it is no image.
    """
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; correct dataset.path")
    classes = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if all(p.name.isdecimal() for p in classes):
        classes.sort(key=lambda p: (int(p.name), p.name))
    else:
        classes.sort(key=lambda p: p.name)
    pictures: list[tuple[str, Bytes]] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        if not files:
            raise UsageError(f"{folder}: it has no images; add some or delete the folder")
        pictures += [(str(path), _read(path)) for path in files]
        labels += [label] * len(files)
    if not pictures:
        raise UsageError(f"{root}: it has no sub-folders; put the images of each class into one")
    return make_pool(stack(pictures), np.asarray(labels), str(root))


def _read(path: Path) -> Bytes:
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
