"""Masks and noise against counts and moments worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget.similarity.mask import apply_mask, block_mask, masked_blocks, number_of_blocks
from distforget.similarity.noise import add_noise

SIDE = st.integers(1, 40)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blocks_of(mask: npt.NDArray[np.uint8], block: int) -> list[npt.NDArray[np.uint8]]:
    height, width = mask.shape
    return [
        mask[y : y + block, x : x + block]
        for y in range(0, height, block)
        for x in range(0, width, block)
    ]


@settings(max_examples=200, deadline=None)
@given(SIDE, SIDE, st.integers(1, 45), st.floats(0, 1), st.integers(0, 2**32))
def test_exactly_so_many_whole_blocks_are_masked(
    height: int, width: int, block: int, fraction: float, seed: int
) -> None:
    mask = block_mask(height, width, block, fraction, draw(seed))
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    blocks = blocks_of(mask, block)
    assert all(len(np.unique(b)) == 1 for b in blocks)
    assert sum(int(b[0, 0]) == 0 for b in blocks) == round(fraction * len(blocks))
    assert number_of_blocks(height, width, block) == len(blocks)


@pytest.mark.parametrize(
    ("size", "block", "fraction", "blocks", "masked"),
    [
        ((28, 28), 2, 0.3, 196, 59),  # 58.8
        ((28, 28), 2, 0.1, 196, 20),  # 19.6
        ((32, 32), 2, 0.05, 256, 13),  # 12.8
        ((5, 7), 2, 0.5, 12, 6),  # 3 x 4 blocks, those at the edge cut
        ((2, 2), 1, 0.125, 4, 0),  # 0.5, to the even number
        ((3, 4), 1, 0.125, 12, 2),  # 1.5, to the even number
    ],
)
def test_the_papers_numbers_of_blocks(
    size: tuple[int, int], block: int, fraction: float, blocks: int, masked: int
) -> None:
    assert number_of_blocks(*size, block) == blocks
    assert masked_blocks(*size, block, fraction) == masked


def test_every_block_is_masked_equally_often() -> None:
    masks = np.stack([block_mask(4, 6, 2, 0.5, draw(seed)) for seed in range(2000)])
    often = 1 - masks.mean(axis=0)
    # Three of six blocks each time: mean 1/2, four standard deviations are 4 * 0.5 / sqrt(2000).
    assert np.abs(often - 0.5).max() < 4 * 0.5 / math.sqrt(2000)


def test_a_larger_fraction_masks_all_that_a_smaller_one_does() -> None:
    masks = [block_mask(28, 28, 2, r, draw()) for r in (0.0, 0.1, 0.3, 1.0)]
    assert masks[0].all()
    assert not masks[-1].any()
    assert all((more <= less).all() for less, more in pairwise(masks))


def test_masked_pixels_are_zero_in_all_channels_and_others_stay() -> None:
    image = draw().integers(1, 256, (9, 8, 3)).astype(np.uint8)
    mask = block_mask(9, 8, 4, 0.4, draw())
    found = apply_mask(image, mask)
    assert found.dtype == np.uint8
    assert (found[mask == 1] == image[mask == 1]).all()
    assert (found[mask == 0] == 0).all()
    assert (mask == 0).any()


@pytest.mark.parametrize(
    "wrong", [(0, 4, 2, 0.5), (4, 4, 0, 0.5), (4, 4, 2, -0.1), (4, 4, 2, 1.1), (4, 4, 2, math.nan)]
)
def test_a_mask_that_cannot_be_is_refused(wrong: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="no mask of"):
        block_mask(*wrong, draw())


def test_noise_has_its_mean_and_deviation() -> None:
    grey = np.full((200, 200, 1), 128, np.uint8)
    noise = (add_noise(grey, 0.1, draw()).astype(float) - 128) / 255
    # 40,000 pixels, five deviations of N(0, 0.1) before clipping; rounding adds (1/255)^2 / 12.
    assert abs(noise.mean()) < 4 * 0.1 / 200
    assert noise.std() == pytest.approx(math.sqrt(0.01 + 1 / 255**2 / 12), rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 255), st.floats(0, 10), st.integers(0, 2**32))
def test_noise_stays_within_8_bits(value: int, sigma: float, seed: int) -> None:
    image = np.full((6, 5, 3), value, np.uint8)
    found = add_noise(image, sigma, draw(seed))
    # By hand, pixel by pixel: a wrap-around at 0 or 255 would show.
    normal = np.random.default_rng(seed).standard_normal(image.shape)
    expected = [min(max(value / 255 + sigma * n, 0.0), 1.0) * 255 for n in normal.ravel()]
    assert np.abs(found.ravel() - np.array(expected)).max() <= 0.5 + 1e-6
    assert found.dtype == np.uint8


def test_no_noise_changes_nothing_and_less_than_none_is_refused() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (add_noise(image, 0.0, draw()) == image).all()
    for sigma in (-0.1, math.nan):
        with pytest.raises(ValueError, match="sigma is"):
            add_noise(image, sigma, draw())
