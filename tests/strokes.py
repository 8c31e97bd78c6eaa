"""Images like handwriting, made here: bright strokes through random points on a dark ground."""

from __future__ import annotations

import torch
from torch import Tensor


def strokes(count: int, seed: int, size: int = 16) -> Tensor:
    """(N, 1, size, size) of pixels 0 to 1, each of a curve through four random points."""
    generator = torch.Generator().manual_seed(seed)
    points_N42 = 2 + (size - 5) * torch.rand(count, 4, 2, generator=generator)
    along_T11 = torch.linspace(0, 2.999, 60)[:, None, None]
    segment_T = along_T11.floor().long()[:, 0, 0]
    share_T1 = along_T11[:, 0] - segment_T[:, None]
    path_NT2 = points_N42[:, segment_T] * (1 - share_T1) + points_N42[:, segment_T + 1] * share_T1
    grid = torch.arange(size, dtype=torch.float32)
    pixels_HW2 = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    distance_NHW = torch.cdist(pixels_HW2.reshape(1, -1, 2), path_NT2).min(2).values
    return torch.exp(-distance_NHW.square() / 1.5).reshape(count, 1, size, size)
