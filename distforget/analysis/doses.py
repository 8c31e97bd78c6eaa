"""Dose-response: knowledge after unlearning, over the number of similar samples trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import own_targets, score_range
from distforget.analysis.intervals import infer
from distforget.method_choice import PLACEBO

BEFORE = {"pre_finetune": "before fine-tuning", "pre_unlearn": "before unlearning"}


def dose_response(scores: pa.Table, metric: str, role: str) -> pd.DataFrame:
    """Mean score with its interval and its extremes, one row for each model, state and dose.

    States are the two phases before unlearning, then method and variant. Placebo cells of all
    methods are one state, whose band from `low` to `high` is the noise floor.

    Args:
        scores: a `scores` table.
        metric: the score, e.g. rougeL_recall.
        role: target or similar; a family's score is the mean over its samples.

    Returns:
        Columns model, state, dose, mean, low, high (over targets and seeds), n (targets times
        seeds; of placebo: cells), lower, upper (95 % interval of the mean over targets; NaN for
        fewer than 3).
    """
    each = by_target(scores, metric, role)
    by = ["model", "state", "dose"]
    found = each.groupby(by).agg(["mean", "min", "max", "size"])
    found.columns = pd.Index(["mean", "low", "high", "n"])
    of_targets = each.groupby([*by, "target_index", "seed"]).mean().groupby(by)
    groups = [group.unstack("seed").to_numpy() for _, group in of_targets]
    known = infer(groups, bounds=score_range(metric))
    found["lower"], found["upper"] = known.low_G, known.high_G
    return found.reset_index()


def slopes(scores: pa.Table, metric: str, role: str) -> pd.DataFrame:
    """Slope of the dose-response, per doubling of 1 + dose, one row for each model and state.

    A slope is fitted to each target's scores (means over seeds) by least squares, over
    log2(1 + dose) since doses are spaced by factors; the interval is that of their mean over
    targets. Targets with one dose have no slope; neither have placebo cells.

    Returns:
        Columns model, state, slope, lower, upper (95 % interval; NaN for fewer than 3 targets),
        targets.
    """
    each = by_target(scores, metric, role).rename("value").reset_index()
    each = each[~each["state"].isin([PLACEBO, BEFORE["pre_finetune"]])]
    by = ["model", "state"]
    target = [*by, "target_index"]
    scored = each.groupby([*target, "dose"])["value"].mean()
    x = pd.Series(np.log2(1 + scored.index.get_level_values("dose")), scored.index, "float64")
    x -= x.groupby(target).transform("mean")
    # What a score at each dose adds to its target's slope; NaN for one dose alone.
    weights = (x / (x * x).groupby(target).transform("sum")).dropna()
    fitted = (weights * scored[weights.index]).groupby(target).sum()
    found = fitted.groupby(by).agg(["mean", "size"])
    found.columns = pd.Index(["slope", "targets"])
    # Steepest with the least score at the doses whose weight is negative, the most at the others.
    least, most = score_range(metric)
    steepest = (most - least) * float(weights.abs().groupby(target).sum().max()) / 2
    groups = [group.to_numpy() for _, group in fitted.groupby(by)]
    known = infer(groups, bounds=(-steepest, steepest))
    found["lower"], found["upper"] = known.low_G, known.high_G
    return found.reset_index()


def by_target(scores: pa.Table, metric: str, role: str) -> pd.Series[float]:
    """Scores by model, state, dose, method, seed and target_index; states as in `dose_response`."""
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
    rows = pd.concat(found).astype({"dose": "int64"})
    by = ["model", "state", "dose", "method", "seed", "target_index"]
    return rows.groupby(by)["value"].mean()
