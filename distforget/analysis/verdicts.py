"""Sums comparisons up: the mean difference, how many targets agree with the paper, n of N."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import EXPERIMENTS, Experiment


@dataclass(frozen=True)
class Verdict:
    """One experiment for one model and method."""

    experiment: Experiment
    dose: int
    model: str
    method: str
    variant: str
    right: float
    left: float
    estimate: float
    """Mean difference over targets (and seeds)."""
    agree: int
    n: int
    planned: int
    unchanged: bool
    """Not one target's score differs."""

    @property
    def word(self) -> str:
        """Whether most targets go as expected."""
        if self.unchanged and self.experiment.expected != "zero":
            return "no change"
        share = self.agree / self.n
        return "agrees" if share > 0.5 else "disagrees" if share < 0.5 else "split"


def verdicts(comparisons: pa.Table, planned: Mapping[tuple[str, str, str], int]) -> list[Verdict]:
    """One verdict an experiment, dose, model, method and variant, in the paper's order.

    Args:
        planned: cells planned at each dose (targets times seeds) by model, method and variant, so
            that missing ones show.
    """
    frame = comparisons.to_pandas()
    found = []
    for experiment in EXPERIMENTS:
        rows = frame[
            (frame["experiment"] == experiment.name)
            & (frame["quantity"] == experiment.quantity)
            & (frame["role"] == experiment.role)
        ].sort_values("dose", kind="stable")
        by = ["dose", "model", "method", "variant"]
        for (dose, model, method, variant), group in rows.groupby(by, sort=False):
            found.append(
                Verdict(
                    experiment,
                    int(dose),
                    str(model),
                    str(method),
                    str(variant),
                    float(group["right"].mean()),
                    float(group["left"].mean()),
                    float(group["difference"].mean()),
                    int(group["agrees"].sum()),
                    len(group),
                    planned[(model, method, variant)],
                    bool((group["difference"] == 0).all()),
                )
            )
    return found


@dataclass(frozen=True)
class Damage:
    """What unlearning did to samples that should stay, for one model, dose, method and variant."""

    role: str
    """other, or neighbour: the same kind of sample as the target's."""
    model: str
    dose: int
    method: str
    variant: str
    before: Mapping[str, float]
    """Mean score by metric."""
    after: Mapping[str, float]
    cells: int
    diverged: int


def damages(scores: pa.Table, cells: pa.Table) -> list[Damage]:
    """Mean scores of other samples and of neighbours before and after unlearning.

    Neighbours are those of the targets that the cells unlearned, in both phases.
    """
    frame = scores.to_pandas()
    frame = frame[frame["role"].isin(["other", "neighbour"])]
    state, by = ["role", "model", "dose"], ["method", "variant"]
    ceilings = dict(list(frame[frame["phase"] == "pre_unlearn"].groupby(state)))
    after = frame[frame["phase"] == "post_unlearn"]
    ended = cells.to_pandas()
    ended = ended[ended["state"] == "done"].groupby(["model", "dose", *by])["diverged"]
    found = []
    for (role, model, dose, method, variant), group in after.groupby([*state, *by], sort=False):
        before = ceilings.get((role, model, dose))
        if before is None:
            continue
        if role == "neighbour":
            before = before[before["target_index"].isin(group["unlearned"])]
        outcomes = ended.get_group((model, dose, method, variant))
        found.append(
            Damage(
                str(role),
                str(model),
                int(dose),
                str(method),
                str(variant),
                _means(before),
                _means(group),
                len(outcomes),
                int(outcomes.sum()),
            )
        )
    return sorted(found, key=lambda d: (d.role, d.model, d.dose))


def _means(scores: pd.DataFrame) -> dict[str, float]:
    found = scores.groupby("metric")["value"].mean()
    return {str(metric): float(value) for metric, value in found.items()}
