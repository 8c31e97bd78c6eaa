"""Dose-response: what is known after unlearning, over how many similar samples were trained on."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import own_targets
from distforget.study import PLACEBO

BEFORE = {"pre_finetune": "before fine-tuning", "pre_unlearn": "before unlearning"}


def dose_response(scores: pa.Table, metric: str, role: str) -> pd.DataFrame:
    """A row a model, state and dose: mean, least and largest score over targets (and seeds).

    States are the two phases before unlearning, then method and variant. Placebo cells of all
    methods are one state, whose band from `low` to `high` is the noise floor.

    Args:
        scores: a `scores` table.
        metric: the score, e.g. rougeL_recall.
        role: target or similar; a family's score is the mean over its samples.

    Returns:
        Columns model, state, dose, mean, low, high, n (targets times seeds; of placebo: cells).
    """
    frame = scores.to_pandas()
    frame = frame[(frame["metric"] == metric) & (frame["role"] == role)]
    after = own_targets(frame)
    after["state"] = after["method"].where(
        after["variant"] == "plain", after["method"] + "+" + after["variant"]
    )
    after.loc[after["variant"] == PLACEBO, "state"] = PLACEBO
    found = [after]
    doses = pd.DataFrame({"dose": sorted(after["dose"].unique())})
    for phase, state in BEFORE.items():
        rows = frame[frame["phase"] == phase].assign(state=state, method="")
        if phase == "pre_finetune":  # no data, so no dose: the same at each
            rows = rows.drop(columns="dose").merge(doses, how="cross").assign(seed=0)
        found.append(rows)
    by = ["model", "state", "dose"]
    rows = pd.concat(found).astype({"dose": "int64"})
    each = rows.groupby([*by, "method", "seed", "target_index"])["value"].mean()
    return each.groupby(by).agg(mean="mean", low="min", high="max", n="size").reset_index()
