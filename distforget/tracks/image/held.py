"""Reads the samples, mean and standard deviation that an auditor brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distforget.errors import UsageError
from distforget.imaging.models import ClassifierConfig
from distforget.imaging.pixels import labels_of, pixels_of
from distforget.sources import folder, npz
from distforget.sources._pool import channels_last, stack

NEVER = "never trained"
"""Group of samples that serve as nulls."""


@dataclass(frozen=True)
class Held:
    """Samples that an auditor holds."""

    images_NCHW: Tensor
    """Pixels, 0 to 1."""
    labels_N: Tensor
    names: list[str]
    groups: list[str]

    def rows(self, never: bool) -> list[int]:
        """Numbers of the never-trained samples, or of all others."""
        return [row for row, group in enumerate(self.groups) if (group == NEVER) == never]


def read_held(path: Path, group: str = "checked") -> Held:
    """Images and their classes out of a folder, a .npz file or a study's samples.parquet.

    Args:
        path: a folder with a sub-folder a class, whose name is the class's number, if all are
            (else they are numbered from 0 by alphabet); a .npz file of `images` and `labels`; or a
            study's samples.parquet, whose roles become the groups.
        group: of the samples of folders and .npz files.

    Raises:
        UsageError: it cannot be read.
    """
    if path.suffix == ".parquet":
        table = read_samples(path)
        roles = [NEVER if r == "unseen" else r for r in table["role"].to_pylist()]
        names = [str(sample) for sample in table["sample_id"].to_pylist()]
        images = torch.from_numpy(pixels_of(table))
        return Held(images, torch.from_numpy(labels_of(table)), names, roles)
    if path.is_dir():
        classes = folder.listing(path)
        numbered = all(name.isdecimal() for name, _ in classes)
        files = [
            (int(name) if numbered else place, file)
            for place, (name, of_class) in enumerate(classes)
            for file in of_class
        ]
        pixels_NHWC = stack([(str(file), folder.read_file(file)) for _, file in files])
        labels = [label for label, _ in files]
        names = [str(file.relative_to(path)) for _, file in files]
    elif path.is_file():
        images_N, labels_N = npz.arrays(path, npz.KEYS)
        pixels_NHWC = channels_last(images_N, f"{path}: key 'images'")
        labels, names = labels_N.tolist(), [str(row) for row in range(len(labels_N))]
    else:
        raise UsageError(f"{path}: no such folder or file")
    if len(labels) != len(pixels_NHWC) or not labels:
        raise UsageError(
            f"{path}: holds {len(pixels_NHWC)} images and {len(labels)} labels; there must be as "
            "many of both, and at least one"
        )
    return Held(_as_model(pixels_NHWC), torch.tensor(labels), names, [group] * len(names))


def joined(*parts: Held) -> Held:
    """All samples of several sets.

    Raises:
        UsageError: their images are of different sizes.
    """
    sizes = {tuple(part.images_NCHW.shape[1:]) for part in parts}
    if len(sizes) > 1:
        raise UsageError(f"images of different sizes are to be checked together: {sorted(sizes)}")
    return Held(
        torch.cat([part.images_NCHW for part in parts]),
        torch.cat([part.labels_N for part in parts]),
        [name for part in parts for name in part.names],
        [group for part in parts for group in part.groups],
    )


def check_fits(held: Held, config: ClassifierConfig, path: Path) -> None:
    """Hold samples to a classifier.

    Raises:
        UsageError: their size or a class is not one of its.
    """
    size = tuple(held.images_NCHW.shape[1:])
    if size != config.image_shape:
        raise UsageError(f"{path}: its images are {size}, the model takes {config.image_shape}")
    if int(held.labels_N.max()) >= config.classes or int(held.labels_N.min()) < 0:
        raise UsageError(
            f"{path}: has a class {int(held.labels_N.max())}, the model has 0 to "
            f"{config.classes - 1}; name sub-folders by the number of the class"
        )


def read_samples(path: Path) -> pa.Table:
    """A study's samples.parquet of images.

    Raises:
        UsageError: it is none.
    """
    wanted = {"sample_id", "role", "pixels", "height", "width", "channels", "answer", "fill_rank"}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error
    if not wanted <= set(table.column_names):
        raise UsageError(
            f"{path}: lacks the columns {', '.join(sorted(wanted - set(table.column_names)))}; "
            "expected the samples.parquet of an image study"
        )
    return table


def read_statistic(given: str, shape: tuple[int, int, int], option: str) -> Tensor:
    """What --mean or --std says: (C, H, W), or what broadcasts to it, in pixels of 0 to 1.

    Args:
        given: a number, or one a channel with commas; an image; a .npz file of `mean` (or `std`),
            or of `images`, whose statistic is taken; a study's samples.parquet, of the other
            samples that all its models were trained on, as studies do it.

    Raises:
        UsageError: it is none of these, or of another size.
    """
    name, path = option.lstrip("-"), Path(given)
    try:
        numbers = [float(number) for number in given.split(",")]
    except ValueError:
        numbers = []
    if numbers:
        found = torch.tensor(numbers).reshape(-1, 1, 1)
    elif not path.is_file():
        raise UsageError(f"{option} {given}: neither a number nor a file")
    elif path.suffix == ".parquet":
        others = read_samples(path)
        others = others.filter(
            pc.and_(pc.equal(others["role"], "other"), pc.is_null(others["fill_rank"]))
        )
        found = _statistic(torch.from_numpy(pixels_of(others)), name)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            keys = set(file.files)
        if name in keys:
            (array,) = npz.arrays(path, [name])
            found = torch.from_numpy(np.asarray(array, np.float32))
            found = found[None] if found.ndim == 2 else found
        else:
            (images,) = npz.arrays(path, ["images"])
            found = _statistic(_as_model(channels_last(images, str(path))), name)
    else:
        found = _as_model(folder.read_file(path)[None])[0]
    if found.ndim != 3 or any(n not in (1, of) for n, of in zip(found.shape, shape, strict=True)):
        raise UsageError(
            f"{option} {given}: has the shape {tuple(found.shape)}, images have {shape}"
        )
    if name == "std" and not bool((found > 0).all()):
        raise UsageError(f"{option} {given}: a deviation must be positive")
    return found.expand(shape)


def _statistic(images_NCHW: Tensor, name: str) -> Tensor:
    if name == "mean":
        return images_NCHW.mean(0)
    return images_NCHW.std()[None, None, None]


def _as_model(pixels_NHWC: npt.NDArray[np.uint8]) -> Tensor:
    pixels_NCHW = np.ascontiguousarray(pixels_NHWC.transpose(0, 3, 1, 2), np.float32)
    return torch.from_numpy(pixels_NCHW) / 255
