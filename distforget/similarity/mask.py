"""Similar images by block masking: random blocks of the target are set to 0 (paper section 3.1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from distforget.errors import UsageError
from distforget.similarity import SimilarImages, Similarity
from distforget.similarity._changed import Bytes, changed


class MaskConfig(SimilarImages):
    """Blocks of the target are set to 0."""

    kind: Literal["mask"] = "mask"
    block: int = Field(2, ge=1, description="side of a block in pixels")
    masked_fraction: float = Field(0.3, gt=0, le=1, description="part of the blocks that is masked")


def make(families: pa.Table, config: MaskConfig, seed: int) -> pa.Table:
    """The targets with random blocks set to 0; column `mask` says which pixels were kept.

    Raises:
        UsageError: a block is larger than an image, or no block would be masked.
    """

    def masked(pixels_HWC: Bytes, draw: np.random.Generator) -> tuple[Bytes, Bytes]:
        height, width, _ = pixels_HWC.shape
        size = f"the images are {height} x {width} pixels"
        if config.block > min(height, width):
            raise UsageError(
                f"{size}, but data.similar.block is {config.block}: lower data.similar.block"
            )
        if not masked_blocks(height, width, config.block, config.masked_fraction):
            raise UsageError(
                f"{size}: data.similar.masked_fraction {config.masked_fraction} with "
                f"data.similar.block {config.block} masks no block; raise masked_fraction"
            )
        mask_HW = block_mask(height, width, config.block, config.masked_fraction, draw)
        return apply_mask(pixels_HWC, mask_HW), mask_HW

    return changed(families, config, seed, masked)


def number_of_blocks(height: int, width: int, block: int) -> int:
    """Blocks of side `block` that cover an image: those at its right and lower edge may be cut."""
    return -(-height // block) * -(-width // block)


def masked_blocks(height: int, width: int, block: int, fraction: float) -> int:
    """round(fraction * number of blocks), halves to the even number."""
    return round(fraction * number_of_blocks(height, width, block))


def block_mask(
    height: int, width: int, block: int, fraction: float, generator: np.random.Generator
) -> Bytes:
    """A random mask [H, W]: 0 in the pixels of `masked_blocks` blocks, 1 elsewhere.

    Blocks are counted from the upper left corner. Where the sides are no multiples of `block`, the
    last row and column of blocks are as wide as what is left of the image, and count like all
    others. With equal generators a larger fraction masks all that a smaller one does.

    Args:
        block: side of a block in pixels, at least 1.
        fraction: part of the blocks that is masked, 0 to 1.

    Raises:
        ValueError: a size is below 1, or the fraction is not in 0..1.
    """
    if min(height, width, block) < 1 or not 0 <= fraction <= 1:
        raise ValueError(
            f"no mask of {height} x {width} pixels with block {block} and fraction {fraction}"
        )
    rows, columns = -(-height // block), -(-width // block)
    kept_B = np.ones(rows * columns, np.uint8)
    order_B = generator.permutation(rows * columns)
    kept_B[order_B[: masked_blocks(height, width, block, fraction)]] = 0
    blocks = kept_B.reshape(rows, columns).repeat(block, axis=0).repeat(block, axis=1)
    return np.ascontiguousarray(blocks[:height, :width])


def apply_mask(pixels_HWC: Bytes, mask_HW: Bytes) -> Bytes:
    """The image with all channels 0 where the mask is 0."""
    return pixels_HWC * mask_HW[:, :, None]


SIMILARITY = Similarity(
    config=MaskConfig,
    version=1,
    source="paper section 3.1: blocks of the target are set to 0",
    track="image",
    make=make,
)
