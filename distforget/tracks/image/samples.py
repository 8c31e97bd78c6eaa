"""Draws the rows of an image dataset from a source's pool.

Ids 0 to T-1 are the targets; then come the similar samples, target after target; the others, class
after class; those that fill a class up where similar samples are left out; and the unseen ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distforget.data import ImageData
from distforget.draws import rng
from distforget.errors import UsageError
from distforget.sources import source_of
from distforget.sources._pool import Pool
from distforget.tracks.base import OpenData
from distforget.tracks.rows import from_base, to_table


@dataclass(frozen=True)
class _Row:
    role: str
    image: int
    """Row of the pool."""
    target_index: int | None = None
    fill_rank: int | None = None


def open_data(data: ImageData, seed: int) -> OpenData:
    """Read the source of a dataset; see :func:`open_pool`."""
    source = source_of(data.source)
    assert source.read_images is not None
    return open_pool(source.read_images(data.source), data, seed)


def open_pool(pool: Pool, data: ImageData, seed: int) -> OpenData:
    """The rows of table `samples`, each image of the pool at most once beside similar samples.

    Every dose trains on exactly `per_class` rows of each class. Targets are of different classes as
    far as there are classes. What is drawn depends on (seed, class, order of the source), so more
    targets, others or unseen images leave the ones drawn before as they are where they still fit.

    Raises:
        UsageError: a class has too few images, or too many targets and similar samples.
    """
    rows = list(_rows(pool, data, seed))
    targets = _table(pool, [row for row in rows if row.role == "target"])

    def complete(similar: pa.Table) -> pa.Table:
        rest = _table(pool, rows[data.targets :])
        return from_base(pa.concat_tables([targets, similar, rest]), 0)

    every = len(rows) + data.targets * data.similar.per_target
    return OpenData(targets, complete, [], every, every)


def _table(pool: Pool, rows: Sequence[_Row]) -> pa.Table:
    """These images as base rows."""
    _, height, width, channels = pool.pixels_NHWC.shape
    images = [row.image for row in rows]
    size = {"height": height, "width": width, "channels": channels}
    return to_table(
        sample_id=[0] * len(rows),
        role=[row.role for row in rows],
        target_index=[row.target_index for row in rows],
        fill_rank=[row.fill_rank for row in rows],
        answer=[str(label) for label in pool.labels_N[images]],
        **{name: [value] * len(rows) for name, value in size.items()},
        pixels=[pool.pixels_NHWC[image].tobytes() for image in images],
        source_index=pool.source_index_N[images].tolist(),
    ).drop_columns("sample_id")


def _rows(pool: Pool, data: ImageData, seed: int) -> Iterator[_Row]:
    number_of_classes = int(pool.labels_N.max()) + 1
    order = rng(seed, "images", "classes of targets").permutation(number_of_classes)
    class_of = {t: int(order[(t - 1) % len(order)]) for t in range(1, data.targets + 1)}
    images = {}
    for label in range(number_of_classes):
        members = np.flatnonzero(pool.labels_N == label)
        _check_class(label, len(members), list(class_of.values()).count(label), pool, data)
        drawn = rng(seed, "images", "class", label).permutation(members)
        images[label] = [int(image) for image in drawn]
    similar = range(1, data.similar.per_target + 1)
    # Unseen images come from the end of each class, all else from its start.
    unseen = [images[label].pop() for label in images for _ in range(data.unseen_per_class)]
    first = {target: images[label].pop(0) for target, label in class_of.items()}
    for target, image in first.items():
        yield _Row("target", image, target)
    for label, left in images.items():
        targets = list(class_of.values()).count(label)
        others = data.per_class - targets * (1 + len(similar))
        for _ in range(others):
            yield _Row("other", left.pop(0))
    for label in class_of.values():
        for rank in similar:
            yield _Row("other", images[label].pop(0), fill_rank=rank)
    for image in unseen:
        yield _Row("unseen", image)


def _check_class(label: int, images: int, targets: int, pool: Pool, data: ImageData) -> None:
    family = targets * (1 + data.similar.per_target)
    if family > data.per_class:
        raise UsageError(
            f"{pool.where}: class {label} has {targets} targets with {data.similar.per_target} "
            f"similar samples each, {family} rows, but data.per_class is {data.per_class}: "
            "lower data.targets or data.similar.per_target, or raise data.per_class"
        )
    needed = data.per_class + data.unseen_per_class
    if images < needed:
        raise UsageError(
            f"{pool.where}: class {label} has {images} images (copies counted once), the study "
            f"asks for {needed}: lower data.per_class ({data.per_class}) or "
            f"data.unseen_per_class ({data.unseen_per_class})"
        )
