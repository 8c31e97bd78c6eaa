"""A similarity-entailed dataset of images, and its rows as arrays; leaves reading to the sources.

Ids 0 to T-1 are the targets; then come the similar samples, target after target; the others, class
after class; those that fill a class up where similar samples are left out; and the unseen ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distforget.dataset_config import DatasetConfig
from distforget.similarity.masks import apply_mask, block_mask, masked_blocks
from distforget.similarity.noise import add_noise
from distforget.study import UsageError, rng
from distforget.tracks.image.sources.pool import Bytes, Pool
from distforget.tracks.rows import to_table


@dataclass(frozen=True)
class _Row:
    role: str
    image: int
    """Row of the pool."""
    target_index: int | None = None
    similar_rank: int | None = None
    fill_rank: int | None = None


def build(pool: Pool, config: DatasetConfig, seed: int) -> pa.Table:
    """The rows of table `samples`, each image of the pool at most once beside similar samples.

    Every dose trains on exactly `per_class` rows of each class. Targets are of different classes as
    far as there are classes. What is drawn depends on (seed, class, order of the source), so more
    targets, others or unseen images leave the ones drawn before as they are where they still fit.

    Raises:
        UsageError: a class has too few images, or too many targets and similar samples.
    """
    rows = list(_rows(pool, config, seed))
    changed = [_similar(pool, row, config, seed) for row in rows]
    _, height, width, channels = pool.pixels_NHWC.shape
    images = [row.image for row in rows]
    return to_table(
        sample_id=range(len(rows)),
        role=[row.role for row in rows],
        target_index=[row.target_index for row in rows],
        similar_rank=[row.similar_rank for row in rows],
        fill_rank=[row.fill_rank for row in rows],
        answer=[str(label) for label in pool.labels_N[images]],
        height=[height] * len(rows),
        width=[width] * len(rows),
        channels=[channels] * len(rows),
        pixels=[pixels_HWC.tobytes() for pixels_HWC, _ in changed],
        mask=[None if mask_HW is None else mask_HW.tobytes() for _, mask_HW in changed],
        source_index=pool.source_index_N[images].tolist(),
    )


def _rows(pool: Pool, config: DatasetConfig, seed: int) -> Iterator[_Row]:
    number_of_classes = int(pool.labels_N.max()) + 1
    order = rng(seed, "images", "classes of targets").permutation(number_of_classes)
    class_of = {t: int(order[(t - 1) % len(order)]) for t in range(1, config.targets + 1)}
    images = {}
    for label in range(number_of_classes):
        members = np.flatnonzero(pool.labels_N == label)
        _check_class(label, len(members), list(class_of.values()).count(label), pool, config)
        drawn = rng(seed, "images", "class", label).permutation(members)
        images[label] = [int(image) for image in drawn]
    similar = range(1, config.similar_per_target + 1)
    # Unseen images come from the end of each class, all else from its start.
    unseen = [images[label].pop() for label in images for _ in range(config.unseen_per_class)]
    first = {target: images[label].pop(0) for target, label in class_of.items()}
    for target, image in first.items():
        yield _Row("target", image, target)
    for target, image in first.items():
        for rank in similar:
            yield _Row("similar", image, target, similar_rank=rank)
    for label, left in images.items():
        targets = list(class_of.values()).count(label)
        others = config.per_class - targets * (1 + len(similar))
        for _ in range(others):
            yield _Row("other", left.pop(0))
    for label in class_of.values():
        for rank in similar:
            yield _Row("other", images[label].pop(0), fill_rank=rank)
    for image in unseen:
        yield _Row("unseen", image)


def _check_class(label: int, images: int, targets: int, pool: Pool, config: DatasetConfig) -> None:
    family = targets * (1 + config.similar_per_target)
    if family > config.per_class:
        raise UsageError(
            f"{pool.where}: class {label} has {targets} targets with {config.similar_per_target} "
            f"similar samples each, {family} rows, but dataset.per_class is {config.per_class}: "
            "lower dataset.targets or dataset.similar_per_target, or raise dataset.per_class"
        )
    needed = config.per_class + config.unseen_per_class
    if images < needed:
        raise UsageError(
            f"{pool.where}: class {label} has {images} images (copies counted once), the study "
            f"asks for {needed}: lower dataset.per_class ({config.per_class}) or "
            f"dataset.unseen_per_class ({config.unseen_per_class})"
        )


def _similar(pool: Pool, row: _Row, config: DatasetConfig, seed: int) -> tuple[Bytes, Bytes | None]:
    """The row's pixels [H, W, C] and, where they are masked, its mask [H, W]."""
    pixels_HWC = pool.pixels_NHWC[row.image]
    if row.role != "similar":
        return pixels_HWC, None
    assert row.target_index is not None
    assert row.similar_rank is not None
    draw = rng(seed, "images", config.similarity, row.target_index, row.similar_rank)
    if config.similarity == "noise":
        return add_noise(pixels_HWC, config.sigma, draw), None
    height, width, _ = pixels_HWC.shape
    _check_mask(height, width, pool, config)
    mask_HW = block_mask(height, width, config.block, config.masked_fraction, draw)
    return apply_mask(pixels_HWC, mask_HW), mask_HW


def _check_mask(height: int, width: int, pool: Pool, config: DatasetConfig) -> None:
    size = f"{pool.where}: its images are {height} x {width} pixels"
    if config.block > min(height, width):
        raise UsageError(f"{size}, but dataset.block is {config.block}: lower dataset.block")
    if not masked_blocks(height, width, config.block, config.masked_fraction):
        raise UsageError(
            f"{size}: dataset.masked_fraction {config.masked_fraction} with dataset.block "
            f"{config.block} masks no block; raise dataset.masked_fraction"
        )


def pixels_of(samples: pa.Table) -> npt.NDArray[np.float32]:
    """The images of rows of `samples`, [N, C, H, W], 0 to 1.

    Raises:
        ValueError: there are no rows, or rows without pixels or of several sizes.
    """
    sizes = {
        tuple(row.values()) for row in samples.select(["height", "width", "channels"]).to_pylist()
    }
    if len(sizes) != 1 or None in (size := sizes.pop()):
        raise ValueError(f"images of one size are needed, {len(samples)} rows have not one")
    flat = np.frombuffer(b"".join(samples["pixels"].to_pylist()), np.uint8)
    pixels_NCHW = flat.reshape(len(samples), *size).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels_NCHW, np.float32) / np.float32(255)


def labels_of(samples: pa.Table) -> npt.NDArray[np.int64]:
    """The classes of rows of `samples`, [N], 0 to K-1."""
    return np.asarray([int(answer) for answer in samples["answer"].to_pylist()], np.int64)
