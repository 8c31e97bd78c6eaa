"""Averages scores over targets, with standard errors, for each model state and role."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from distforget.attacks import UNATTACKED

STATE = ["phase", "model", "dose", "method", "variant"]
"""A model state; dose, method and variant are null where the phase has none."""
GROUP = [*STATE, "role"]
PHASES = ("pre_finetune", "pre_unlearn", "post_unlearn")


def unattacked(table: pa.Table) -> pa.Table:
    """The rows of a table, such as `scores`, that are about states as unlearning left them."""
    return table.filter(pc.equal(table["attack"], UNATTACKED))


def in_order(found: pd.DataFrame) -> pd.DataFrame:
    """Sorts rows by phase and keeps their order within each phase."""
    order = found["phase"].map(PHASES.index).sort_values(kind="stable").index
    return found.loc[order].reset_index(drop=True)


def targets_of(scores: pd.DataFrame) -> pd.Series[float]:
    """The target that each score counts for: that of its cell or, before unlearning, its family's.

    Null for samples of no family before unlearning.
    """
    return scores["unlearned"].fillna(scores["target_index"])


def of_targets(scores: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over each target's samples, then over seeds; one row for each group and target."""
    seeds = scores.groupby([*by, "target", "seed"], dropna=False)[list(values)].mean()
    return seeds.groupby([*by, "target"], dropna=False).mean()


def means(scores: pa.Table) -> pd.DataFrame:
    """Mean and standard error of each model state, role and metric of a `scores` table.

    Before unlearning each sample of no target's family counts for itself. p-values are left out,
    since a mean of them means nothing.

    Returns:
        Columns phase, model, dose, method, variant, role, metric; mean and stderr (standard error)
        over targets, the latter NaN for one; targets, samples (scores).
    """
    frame = scores.to_pandas()
    frame = frame[~frame["metric"].str.endswith("p_value")]
    frame["target"] = targets_of(frame).fillna(frame["sample_id"])
    by = [*GROUP, "metric"]
    groups = of_targets(frame, by, ["value"])["value"].groupby(by, dropna=False)
    found = groups.agg(["mean", "std", "size"])
    found["stderr"] = found.pop("std") / np.sqrt(found["size"])
    found = found.rename(columns={"size": "targets"})
    found["samples"] = frame.groupby(by, dropna=False).size()
    return in_order(found.reset_index())
