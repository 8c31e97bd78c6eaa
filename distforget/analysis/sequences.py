"""What is left of each target when several are unlearned one after another on the same weights."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import own_targets
from distforget.method_choice import SEQUENCE
from distforget.study import Study

ROLES = ("target", "similar")


def sequences(study: Study, scores: pa.Table, metric: str) -> pd.DataFrame:
    """Scores after so many requests, one row for each model, dose, method, role and count.

    Args:
        scores: of states that were not attacked.
        metric: the score, e.g. fact_recall.

    Returns:
        Columns model, dose, method, role, requests; before (the same samples before unlearning);
        alone (each target unlearned alone); first (the first request's), last, all (the mean of all
        requests so far). Means over seeds, of samples of a role over the samples.
    """
    frame = scores.to_pandas()
    frame = frame[(frame["metric"] == metric) & frame["role"].isin(ROLES)]
    turns = {seed: study.turns(seed) for seed in range(study.seeds)}
    after = frame[frame["variant"] == SEQUENCE].astype({"seed": int, "unlearned": int})
    if after.empty:
        return pd.DataFrame()
    each = ["model", "dose", "role", "seed", "target_index"]
    before = frame[frame["phase"] == "pre_unlearn"].groupby(each)["value"].mean().rename("before")
    plain = own_targets(frame[frame["variant"] == "plain"])
    alone = plain.groupby([*each, "method"])["value"].mean().rename("alone")
    after = after.assign(
        requests=[turns[s].index(u) + 1 for s, u in zip(after.seed, after.unlearned, strict=True)],
        turn=[turns[s].index(t) + 1 for s, t in zip(after.seed, after.target_index, strict=True)],
    )
    by_target = after.groupby([*each, "method", "requests", "turn"])["value"].mean().reset_index()
    joined = by_target.merge(before, on=each).merge(alone, on=[*each, "method"])
    joined["first"] = joined["value"].where(joined["turn"] == 1)
    joined["last"] = joined["value"].where(joined["turn"] == joined["requests"])
    found = joined.groupby(["model", "dose", "method", "role", "requests"], sort=False)
    columns = ["before", "alone", "first", "last", "value"]
    means: pd.DataFrame = found[columns].mean().reset_index()
    return means.rename(columns={"value": "all"})
