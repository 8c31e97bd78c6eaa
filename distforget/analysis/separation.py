"""How well a score separates trained samples from never-trained ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]


def auc(members_N: Floats, others_M: Floats) -> float:
    """Probability that a member scores above a non-member; ties count half (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([members_N, others_M]))[: len(members_N)]
    above = ranks.sum() - len(members_N) * (len(members_N) + 1) / 2
    return float(above / (len(members_N) * len(others_M)))


def tpr_at_fpr(members_N: Floats, others_M: Floats, fpr: float = 0.01) -> float:
    """Share of members above the lowest threshold that at most a share `fpr` of others exceeds.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles".
    """
    allowed = math.floor(fpr * len(others_M) + 1e-9)
    if allowed >= len(others_M):
        return 1.0
    threshold = np.sort(others_M)[::-1][allowed]
    return float((members_N > threshold).mean())


def separation(scores: pa.Table, metric: str) -> pd.DataFrame:
    """One row for each model and dose before unlearning: trained samples against unseen ones.

    Returns:
        Columns model, dose, trained, unseen (mean scores), auc, tpr (at 1 % false positives),
        n_trained, n_unseen; seeds are pooled. Empty where no unseen samples were asked.
    """
    frame = scores.to_pandas()
    frame = frame[(frame["metric"] == metric) & (frame["phase"] == "pre_unlearn")]
    rows = []
    for (model, dose), group in frame.groupby(["model", "dose"]):
        members, others = (
            group.loc[group["role"] == role, "value"].to_numpy() for role in ("other", "unseen")
        )
        if len(members) and len(others):
            rows.append(
                {
                    "model": model, "dose": int(dose), "trained": members.mean(),
                    "unseen": others.mean(), "auc": auc(members, others),
                    "tpr": tpr_at_fpr(members, others), "n_trained": len(members),
                    "n_unseen": len(others),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
