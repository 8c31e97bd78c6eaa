"""SSIM of pairs against scikit-image; best matches and separation against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from distforget.imaging import ssim
from distforget.imaging.ssim import (
    best_matches,
    scaled_ssim_pairs,
    ssim_pairs,
)


def reference(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    return float(structural_similarity(left, right, data_range=1, channel_axis=0))


def images(draw: np.random.Generator, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Flat, noisy, dark and out-of-range ones."""
    kinds = (draw.random(), 0.0, 1.0, 3 * draw.normal())
    made = [kinds[i % 4] * draw.random(shape) ** draw.integers(0, 9) for i in range(count)]
    return torch.from_numpy(np.stack(made))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(7, 19), st.integers(7, 19), st.integers(1, 4),
    st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([2**23, 100, 1]),
)  # fmt: skip
def test_pairs_are_those_of_skimage(
    channels: int, height: int, width: int, lefts: int, rights: int, seed: int, block: int
) -> None:
    draw = np.random.default_rng(seed)
    left = images(draw, lefts, (channels, height, width))
    right = torch.cat([images(draw, rights, (channels, height, width)), left[:1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssim, "_BLOCK", block)
        found = ssim_pairs(left, right)
    expected = [[reference(x.numpy(), y.numpy()) for y in right] for x in left]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found[0, -1] == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(7, 12), st.integers(0, 10**6))
def test_scaled_pairs_are_skimage_of_the_fitted_candidate(
    channels: int, size: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    candidates, originals = (images(draw, 3, (channels, size, size + 1)) for _ in range(2))
    mean = torch.from_numpy(draw.random((channels, size, size + 1)))
    found, scale = scaled_ssim_pairs(candidates, originals, mean)
    for i, candidate in enumerate(candidates - mean):
        for j, original in enumerate(originals):
            x, o = candidate.flatten().numpy(), (original - mean).flatten().numpy()
            best = np.linalg.lstsq(x[:, None], o, rcond=None)[0][0]
            assert scale[i, j] == pytest.approx(best)
            fitted = (mean + best * candidate).numpy()
            assert found[i, j] == pytest.approx(reference(fitted, original.numpy()), abs=1e-6)


def test_a_scaled_and_negated_copy_is_found_exactly() -> None:
    draw = torch.Generator().manual_seed(0)
    originals, mean = torch.rand(4, 1, 9, 9, generator=draw), torch.rand(1, 9, 9, generator=draw)
    candidates = torch.stack([mean + factor * (originals[i] - mean) for i, factor in
                              [(2, 3.0), (0, -0.5), (3, 0.01), (1, 1.0)]])  # fmt: skip
    found = best_matches(candidates, originals, mean)
    assert found.index_M.tolist() == [1, 3, 0, 2]
    torch.testing.assert_close(found.ssim_M, torch.ones(4).double(), rtol=0, atol=1e-6)
    expected = torch.tensor([-2.0, 1, 1 / 3, 100]).double()
    torch.testing.assert_close(found.scale_M, expected, rtol=1e-4, atol=0)


def test_a_candidate_equal_to_the_mean_is_the_mean() -> None:
    mean = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    original = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found = best_matches(mean[None], original, mean)
    expected = reference(mean.double().numpy(), original[0].double().numpy())
    assert found.ssim_M.item() == pytest.approx(expected, abs=1e-6)
    assert found.scale_M.item() == 0


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [((2, 1, 8, 8), (2, 3, 8, 8), "of one size"), ((1, 1, 6, 9), (1, 1, 6, 9), "at least 7 x 7")],
)
def test_shapes_that_do_not_fit_are_refused(
    left: tuple[int, ...], right: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ssim_pairs(torch.zeros(left), torch.zeros(right))
