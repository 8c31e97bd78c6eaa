"""Puts each experiment's differences together from `scores`, one row a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa

from distforget import schemas

Direction = Literal["negative", "positive"]
CELL = ["model", "method", "seed", "unlearned"]


@dataclass(frozen=True)
class Experiment:
    """A comparison of the paper (SPEC section 5) and the direction it claims (section 7)."""

    name: str
    quantity: Literal["post-pre_unlearn", "post-pre_finetune", "dose-dose"]
    role: Literal["target", "similar"]
    dose: Literal["all", "none"]
    """Training data of the left side: with all similar samples (W), or without (W/O)."""
    expected: Direction
    title: str


EXPERIMENTS = (
    Experiment(
        "E3", "post-pre_unlearn", "similar", "all", "negative",
        "similar samples, trained on: knowledge falls when the target is unlearned",
    ),
    Experiment(
        "E3", "post-pre_finetune", "similar", "all", "positive",
        "similar samples, trained on: knowledge stays above the floor",
    ),
    Experiment(
        "E4", "post-pre_unlearn", "target", "all", "negative",
        "target, similar samples kept: knowledge falls",
    ),
    Experiment(
        "E4", "post-pre_finetune", "target", "all", "positive",
        "target, similar samples kept: knowledge stays above the floor",
    ),
    Experiment(
        "E4", "dose-dose", "target", "all", "positive",
        "target: similar samples in the data keep its knowledge alive (W minus W/O)",
    ),
    Experiment(
        "E5", "post-pre_unlearn", "similar", "none", "negative",
        "similar samples, never trained on: knowledge falls",
    ),
    Experiment(
        "E5", "post-pre_finetune", "similar", "none", "positive",
        "similar samples, never trained on: knowledge stays above the floor",
    ),
)  # fmt: skip


def compare(scores: pa.Table, metric: str) -> pa.Table:
    """The `comparisons` table of a study.

    A sample family's score is the mean over the samples asked, e.g. KM(M; S(x_i)) of SPEC section
    5. Phases before unlearning are averaged over the same samples as the phase after it.

    Args:
        scores: a `scores` table; cells that are missing in it are missing in the result.
        metric: the score compared, e.g. rougeL_recall.
    """
    frame = scores.to_pandas()
    frame = frame[frame["metric"] == metric]
    post = _family_means(frame[frame["phase"] == "post_unlearn"], [*CELL, "dose"], own=True)
    before = {
        "post-pre_unlearn": _family_means(
            frame[frame["phase"] == "pre_unlearn"], ["model", "seed", "dose"]
        ),
        "post-pre_finetune": _family_means(frame[frame["phase"] == "pre_finetune"], ["model"]),
    }
    if post.empty:
        return schemas.empty("comparisons")
    doses = sorted(post["dose"].unique())
    parts = []
    for experiment in EXPERIMENTS:
        wanted = doses[-1] if experiment.dose == "all" else 0
        left = post[(post["role"] == experiment.role) & (post["dose"] == wanted)]
        if (experiment.dose == "all" and wanted == 0) or left.empty:
            continue
        if experiment.quantity == "dose-dose":
            right = post[(post["role"] == experiment.role) & (post["dose"] == 0)]
            keys = [*CELL, "role"]
        else:
            right = before[experiment.quantity]
            keys = [k for k in right.columns if k not in ("value", "samples")]
        baseline = {"post-pre_unlearn": wanted, "post-pre_finetune": None, "dose-dose": 0}
        joined = left.merge(right, on=keys, suffixes=("", "_right"))
        difference = joined["value"] - joined["value_right"]
        parts.append(
            pd.DataFrame(
                {
                    "experiment": experiment.name,
                    "quantity": experiment.quantity,
                    **{name: joined[name] for name in (*CELL, "role")},
                    "dose": wanted,
                    "baseline_dose": baseline[experiment.quantity],
                    "metric": metric,
                    "left": joined["value"],
                    "right": joined["value_right"],
                    "difference": difference,
                    "samples": joined["samples"],
                    "expected": experiment.expected,
                    "agrees": difference > 0
                    if experiment.expected == "positive"
                    else difference < 0,
                }
            )
        )
    rows = [
        {str(name): value for name, value in row.items()}
        for part in parts
        for row in part.to_dict("records")
    ]
    return schemas.from_rows("comparisons", rows)


def _family_means(frame: pd.DataFrame, by: list[str], own: bool = False) -> pd.DataFrame:
    """Mean score of each target and of each target's similar samples.

    Args:
        own: keep only the family of the target that was unlearned.
    """
    family = frame[frame["role"].isin(["target", "similar"])]
    if own:
        family = family[family["target_index"] == family["unlearned"]]
    keys = by if own else [*by, "target_index"]
    # Null in other phases, so pandas holds them as floats.
    family = family.astype({name: "int64" for name in keys if name not in ("model", "method")})
    means = family.groupby([*keys, "role"], as_index=False).agg(
        value=("value", "mean"), samples=("value", "size")
    )
    return means if own else means.rename(columns={"target_index": "unlearned"})
