"""Similar images by block masking (paper section 3.1); knows nothing of targets and datasets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


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
