"""What is left of each target when several are unlearned one after another on the same weights."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import own_targets
from distforget.method_choice import SEQUENCE
from distforget.study import Study

ROLES = ("target", "similar")
STATE = ["model", "dose", "method"]


def sequences(study: Study, scores: pa.Table, metric: str) -> pd.DataFrame:
    """Scores after so many requests, one row for each model, dose, method, role and count.

    Args:
        scores: of states that were not attacked.
        metric: the score, e.g. fact_recall.

    Returns:
        Columns model, dose, method, role, requests; before (the same samples before unlearning);
        alone (each target unlearned alone); first (the first request's), last, all (the mean of all
        requests so far); others (the other samples; NaN if none were asked). Means over seeds, of
        samples of a role over the samples.
    """
    frame = scores.to_pandas()
    frame = frame[frame["metric"] == metric]
    turns = {seed: study.turns(seed) for seed in range(study.seeds)}
    after = frame[frame["variant"] == SEQUENCE].astype({"seed": int, "unlearned": int, "dose": int})
    if after.empty:
        return pd.DataFrame()
    after["requests"] = [
        turns[seed].index(last) + 1
        for seed, last in zip(after["seed"], after["unlearned"], strict=True)
    ]
    kept = after[after["role"] == "other"].groupby([*STATE, "requests"])["value"].mean()
    after = after[after["role"].isin(ROLES)]
    after["turn"] = [
        turns[seed].index(target) + 1
        for seed, target in zip(after["seed"], after["target_index"], strict=True)
    ]
    each = ["model", "dose", "role", "seed", "target_index"]
    before = frame[frame["phase"] == "pre_unlearn"].groupby(each)["value"].mean().rename("before")
    plain = own_targets(frame[frame["variant"] == "plain"])
    alone = plain.groupby([*each, "method"])["value"].mean().rename("alone")
    by_target = after.groupby([*each, "method", "requests", "turn"])["value"].mean().reset_index()
    joined = by_target.merge(before, on=each).merge(alone, on=[*each, "method"])
    joined["first"] = joined["value"].where(joined["turn"] == 1)
    joined["last"] = joined["value"].where(joined["turn"] == joined["requests"])
    columns = ["before", "alone", "first", "last", "value"]
    means: pd.DataFrame = joined.groupby([*STATE, "role", "requests"])[columns].mean().reset_index()
    means = means.rename(columns={"value": "all"})
    return means.merge(kept.rename("others"), how="left", on=[*STATE, "requests"])
