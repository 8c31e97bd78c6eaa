"""Sums comparisons up: the mean difference, how many targets agree with the paper, n of N."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from distforget.analysis.comparisons import EXPERIMENTS, Experiment


@dataclass(frozen=True)
class Verdict:
    """One experiment for one model and method."""

    experiment: Experiment
    model: str
    method: str
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
        """Whether most targets go the paper's way."""
        if self.unchanged:
            return "no change"
        share = self.agree / self.n
        return "agrees" if share > 0.5 else "disagrees" if share < 0.5 else "split"


def verdicts(comparisons: pa.Table, planned: int) -> list[Verdict]:
    """One verdict an experiment, model and method, in the paper's order.

    Args:
        planned: cells planned for each (targets times seeds), so that missing ones show.
    """
    frame = comparisons.to_pandas()
    found = []
    for experiment in EXPERIMENTS:
        rows = frame[
            (frame["experiment"] == experiment.name)
            & (frame["quantity"] == experiment.quantity)
            & (frame["role"] == experiment.role)
        ]
        for (model, method), group in rows.groupby(["model", "method"], sort=False):
            found.append(
                Verdict(
                    experiment,
                    str(model),
                    str(method),
                    float(group["right"].mean()),
                    float(group["left"].mean()),
                    float(group["difference"].mean()),
                    int(group["agrees"].sum()),
                    len(group),
                    planned,
                    bool((group["difference"] == 0).all()),
                )
            )
    return found


@dataclass(frozen=True)
class Damage:
    """What unlearning did to other samples, for one model, method and dose."""

    model: str
    method: str
    dose: int
    before: float
    after: float
    cells: int
    diverged: int


def damages(scores: pa.Table, cells: pa.Table, metric: str) -> list[Damage]:
    """Mean score of other samples before and after unlearning, and how many cells diverged."""
    frame = scores.to_pandas()
    frame = frame[(frame["metric"] == metric) & (frame["role"] == "other")]
    before = frame[frame["phase"] == "pre_unlearn"].groupby(["model", "dose"])["value"].mean()
    after = frame[frame["phase"] == "post_unlearn"]
    ended = cells.to_pandas()
    ended = ended[ended["state"] == "done"]
    found = []
    for (model, method, dose), group in after.groupby(["model", "method", "dose"], sort=False):
        mine = ended[
            (ended["model"] == model) & (ended["method"] == method) & (ended["dose"] == dose)
        ]
        if (model, dose) in before.index:
            found.append(
                Damage(
                    str(model),
                    str(method),
                    int(dose),
                    float(before[(model, dose)]),
                    float(group["value"].mean()),
                    len(mine),
                    int(mine["diverged"].sum()),
                )
            )
    return found
