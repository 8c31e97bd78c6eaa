"""Compares scores with those of never-trained samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def against_nulls(
    score_N: Tensor,
    labels_N: Tensor,
    null_M: Tensor,
    null_labels_M: Tensor,
    itself: Sequence[int | None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The mean of each sample's class among nulls, and the p-value of the sample's score.

    What is compared is the contrast, a score less the mean of the nulls of its class (a null's less
    that of the others). It is pooled over classes, so p falls as far as 1/(1 + M). Of a sample that
    was not trained on either, p is at most a with probability about a (all ranks are as likely; the
    classes may differ in their means, but should not in their spread), so no threshold is needed.

    Args:
        score_N: of the samples asked for; more means more known.
        labels_N: their classes.
        null_M: scores of samples that were never trained on.
        null_labels_M: their classes.
        itself: of each sample its own row among the nulls, which is left out for it; None: it has
            none.

    Returns:
        The mean (N,) and the p-value (N,): the share of the nulls, the sample itself counted, whose
        contrast is as large. Where a class has no null, NaN and 1.
    """
    own_N = torch.tensor([-1 if row is None else row for row in itself or [None] * len(score_N)])
    same_NM = labels_N[:, None] == null_labels_M[None]
    same_NM &= own_N[:, None] != torch.arange(len(null_M))[None]
    mean_N = (same_NM * null_M).sum(1) / same_NM.sum(1)
    others_MM = null_labels_M[:, None] == null_labels_M[None]
    others_MM.fill_diagonal_(False)
    contrast_M = null_M - (others_MM * null_M).sum(1) / others_MM.sum(1)
    counted_NM = contrast_M.isfinite()[None] & (own_N[:, None] != torch.arange(len(null_M))[None])
    contrast_N = score_N - mean_N
    # Rounding of the means must not part ties.
    slack = 1e-12 * (1 + null_M.abs().max()) if len(null_M) else 0.0
    as_much_N = (counted_NM & (contrast_M[None] >= contrast_N[:, None] - slack)).sum(1)
    p_N = (1 + as_much_N) / (1 + counted_NM.sum(1))
    return mean_N, torch.where(mean_N.isnan(), 1.0, p_N)
