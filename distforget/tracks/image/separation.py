"""How well a score tells members from others: AUC and true positives at a bound on false ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def auc(members_N: Tensor, others_M: Tensor) -> float:
    """Chance that a member scores above an other; ties count half (Mann-Whitney)."""
    difference_NM = members_N[:, None] - others_M[None]
    above = (difference_NM > 0).double() + (difference_NM == 0).double() / 2
    return float(above.mean())


def tpr_at_fpr(members_N: Tensor, others_M: Tensor, fpr: float = 0.01) -> float:
    """Share of members above the lowest threshold that at most a share `fpr` of others exceeds.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles".
    """
    allowed = math.floor(fpr * len(others_M) + 1e-9)
    if allowed >= len(others_M):
        return 1.0
    threshold = torch.sort(others_M, descending=True).values[allowed]
    return float((members_N > threshold).double().mean())
