"""Helpers of the image probes. Torch is imported only when a probe runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from distforget.probes import ImageEvidence


def against_unseen(
    evidence: ImageEvidence, score_N: Tensor, null_M: Tensor
) -> tuple[Tensor, Tensor]:
    """See `nulls.against_nulls`: the samples of the evidence against the never-trained ones."""
    from distforget.imaging.nulls import against_nulls

    itself = places(evidence.samples, evidence.unseen)
    labels_N = evidence.images(evidence.samples).labels_N.cpu()
    labels_M = evidence.images(evidence.unseen).labels_N.cpu()
    return against_nulls(score_N, labels_N, null_M, labels_M, itself)


def places(samples: pa.Table, among: pa.Table) -> list[int | None]:
    """The row of each sample among others; None where it is not there."""
    row_of = {sample: row for row, sample in enumerate(among["sample_id"].to_pylist())}
    return [row_of.get(sample) for sample in samples["sample_id"].to_pylist()]


def pixels(samples: pa.Table) -> Tensor:
    """(N, C, H, W) float32, 0 to 1."""
    import torch

    from distforget.imaging.pixels import pixels_of

    return torch.from_numpy(pixels_of(samples))


def plain(values_N: Tensor) -> np.ndarray:
    """(N,) float64."""
    found: np.ndarray = values_N.double().cpu().numpy()
    return found
