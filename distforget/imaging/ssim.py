"""SSIM of all pairs of two sets of images, and the best match of each original.

The structural similarity is that of scikit-image with `data_range=1` and its defaults: 7 x 7
uniform window, sample covariance, mean over channels (Wang et al. 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2
_BLOCK = 2**23
"""Numbers a block of pairs may hold at once (64 MiB of float64)."""


class Matches(NamedTuple):
    """The best candidate of each original."""

    ssim_M: Tensor
    """SSIM of the best candidate, float64."""
    index_M: Tensor
    """Which candidate it is."""
    scale_M: Tensor
    """The factor that fits it to the original; negative: its sign was turned."""


def ssim_pairs(left_NCHW: Tensor, right_MCHW: Tensor) -> Tensor:
    """SSIM of each left with each right image: (N, M), float64.

    Args:
        left_NCHW: pixels, 0 to 1 (values beyond are not clipped).
        right_MCHW: of the same channels, height and width.

    Raises:
        ValueError: the shapes differ or are smaller than the window.
    """
    _check(left_NCHW, right_MCHW)
    blank_1CHW = torch.zeros_like(left_NCHW[:1])
    ones_NM = left_NCHW.new_ones(len(left_NCHW), len(right_MCHW), dtype=torch.float64)
    return _ssim(left_NCHW, right_MCHW, blank_1CHW, ones_NM)


def best_matches(candidates_NCHW: Tensor, originals_MCHW: Tensor, mean_CHW: Tensor) -> Matches:
    """For each original the candidate of highest SSIM, each fitted to it by one factor.

    Both are taken without the mean image: x = candidate - mean, o = original - mean. The factor is
    that of least squares, s = <x, o> / <x, x>, of either sign (0 for x = 0), and what is compared
    with the original is mean + s * x, not clipped. An attack on a network finds a sample only up to
    the scale that its multiplier takes up. The factor uses the original, and so helps *every*
    original a little: members and controls must both be scored by this function.

    Args:
        candidates_NCHW: pixels, the mean image added.
        originals_MCHW: pixels, 0 to 1.
        mean_CHW: the mean image that was subtracted in training.
    """
    ssim_NM, scale_NM = scaled_ssim_pairs(candidates_NCHW, originals_MCHW, mean_CHW)
    ssim_M, index_M = ssim_NM.max(dim=0)
    return Matches(ssim_M, index_M, scale_NM.gather(0, index_M[None])[0])


def scaled_ssim_pairs(
    candidates_NCHW: Tensor, originals_MCHW: Tensor, mean_CHW: Tensor
) -> tuple[Tensor, Tensor]:
    """SSIM of all pairs and the factors they were fitted by, as :func:`best_matches` has them.

    Both are (N, M), float64.
    """
    _check(candidates_NCHW, originals_MCHW)
    mean_CHW = mean_CHW.double()
    x_NCHW = candidates_NCHW.double() - mean_CHW
    o_MD = (originals_MCHW.double() - mean_CHW).flatten(1)
    x_ND = x_NCHW.flatten(1)
    power_N1 = x_ND.square().sum(1, keepdim=True)
    scale_NM = torch.where(power_N1 > 0, x_ND @ o_MD.T / power_N1, 0.0)
    return _ssim(x_NCHW, originals_MCHW, mean_CHW[None], scale_NM), scale_NM


def _ssim(left_NCHW: Tensor, right_MCHW: Tensor, base_1CHW: Tensor, scale_NM: Tensor) -> Tensor:
    """SSIM of base + scale * left with right, from the moments of the three in each window.

    One row of windows at a time, so that memory grows with the pairs alone.
    """
    channels, height, width = left_NCHW.shape[1:]
    sum_NM = torch.zeros_like(scale_NM)
    columns = max(1, min(len(right_MCHW), _BLOCK // width))
    rows = max(1, _BLOCK // (width * columns))
    for channel in range(channels):
        for top in range(height - WINDOW + 1):
            left, right, base = (
                _windows(images[:, channel, top : top + WINDOW])
                for images in (left_NCHW, right_MCHW, base_1CHW)
            )
            for start in range(0, len(right_MCHW), columns):
                m = slice(start, start + columns)
                for first in range(0, len(left_NCHW), rows):
                    n = slice(first, first + rows)
                    sum_NM[n, m] += _sum_of_windows(left[n], right[m], base, scale_NM[n, m])
    return sum_NM / (channels * (height - WINDOW + 1) * (width - WINDOW + 1))


@dataclass(frozen=True)
class _Windows:
    """One row of windows of each image, pixels without their mean; P positions, W pixels."""

    mean_PN: Tensor
    centred_PNW: Tensor

    def __getitem__(self, images: slice) -> _Windows:
        return _Windows(self.mean_PN[:, images], self.centred_PNW[:, images])


def _windows(band_NHW: Tensor) -> _Windows:
    windows_PNW = band_NHW.double().unfold(2, WINDOW, 1).permute(2, 0, 1, 3).flatten(2)
    mean_PN1 = windows_PNW.mean(-1, keepdim=True)
    return _Windows(mean_PN1[..., 0], windows_PNW - mean_PN1)


def _sum_of_windows(left: _Windows, right: _Windows, base: _Windows, scale_NM: Tensor) -> Tensor:
    mean_right_P1M = right.mean_PN[:, None]
    mean_PNM = left.mean_PN[..., None] * scale_NM + base.mean_PN[..., None]
    covariance_PNM = _covariance(left, right).mul_(scale_NM).add_(_covariance(base, right))
    variance_PNM = _variance(left)[..., None] * scale_NM + 2 * _covariance(left, base)
    variance_PNM.mul_(scale_NM).add_(_variance(base)[..., None] + _variance(right)[:, None] + _C2)
    above_PNM = (2 * mean_right_P1M * mean_PNM).add_(_C1).mul_(covariance_PNM.mul_(2).add_(_C2))
    below_PNM = mean_PNM.square_().add_(mean_right_P1M.square() + _C1).mul_(variance_PNM)
    return above_PNM.div_(below_PNM).sum(0)


def _covariance(left: _Windows, right: _Windows) -> Tensor:
    return torch.bmm(left.centred_PNW, right.centred_PNW.mT) / (WINDOW**2 - 1)


def _variance(windows: _Windows) -> Tensor:
    return windows.centred_PNW.square().sum(-1) / (WINDOW**2 - 1)


def _check(left_NCHW: Tensor, right_MCHW: Tensor) -> None:
    if left_NCHW.ndim != 4 or left_NCHW.shape[1:] != right_MCHW.shape[1:]:
        raise ValueError(
            f"images must be (N, C, H, W) of one size, not {tuple(left_NCHW.shape)} and "
            f"{tuple(right_MCHW.shape)}"
        )
    if min(left_NCHW.shape[2:]) < WINDOW:
        raise ValueError(
            f"images are {left_NCHW.shape[2]} x {left_NCHW.shape[3]}; SSIM needs at least "
            f"{WINDOW} x {WINDOW} pixels"
        )
