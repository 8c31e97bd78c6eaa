"""What a study's scores say of its targets' images: is a sample gone, and is its influence?"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from distforget.analysis.doses import by_target
from distforget.analysis.intervals import combined

EVIDENCE = (
    "ssim", "ssim_null", "ssim_p_value", "kinks", "kink_p_value", "kkt_multiplier", "span_score",
    "loss_p_value",
)  # fmt: skip
CAPTION = (
    "Influence: ssim against ssim_null, what the same attack reaches with never-trained images of "
    "the class. The sample itself: kinks, hidden units on whose edge it lies (never-trained images "
    "lie on next to none: a few are near proof, none says little); kkt_multiplier (1: part of the "
    "solution, 0: not); span_score; its loss. p: the chance of as much for a never-trained image, "
    "targets combined."
)


def evidence(scores: pa.Table) -> pd.DataFrame:
    """A row a model, state and dose, as `dose_response` has them: what is known of the target.

    Returns:
        Columns model, state, dose, those of `EVIDENCE` that were scored (means over targets and
        seeds; p-values combined over them) and n (targets times seeds).
    """
    there = set(scores["metric"].unique().to_pylist())
    columns: dict[str, pd.Series[float] | pd.Series[int]] = {}
    for metric in (m for m in EVIDENCE if m in there):
        each = by_target(scores, metric, "target").groupby(["model", "state", "dose"])
        of_p = metric.endswith("p_value")
        columns[metric] = each.agg(lambda p: combined(p.to_numpy())) if of_p else each.mean()
        columns["n"] = each.size()
    found = pd.DataFrame(columns).reset_index()
    return found[[*found.columns.drop("n"), "n"]]


def shown(metric: str, value: float) -> str:
    """A number of that table as people read it; nothing where there is none."""
    if value != value:
        return ""
    return f"{value:.2g}" if metric.endswith("p_value") else f"{value:.2f}"
