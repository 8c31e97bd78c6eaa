"""Turns comparisons into verdicts: estimate, interval, targets that agree; and measures damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import (
    EXPERIMENTS,
    Expected,
    Experiment,
    as_expected,
    other_side,
    score_range,
)
from distforget.analysis.intervals import FEWEST, Floats, Inference, equivalence, holm, infer

WRONG_AT_MOST = 0.05
"""Probability that any verdict of an experiment is wrong by chance."""
GROUP = ["dose", "model", "method", "variant"]

TOO_FEW, TOO_SMALL = "too few targets", "too small"

Word = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One experiment for one model, method, variant and dose.

    A claim of a direction is supported when the mean difference has it, surely (two-sided, Holm
    over the experiment's verdicts on one score) and by no less than the margin; contradicted when
    it has the other one as surely and by as much. A claim of "about 0" is supported when the mean
    surely lies within the margin (two one-sided tests, Holm), contradicted when it surely lies
    beyond.
    """

    experiment: Experiment
    metric: str
    """The score compared."""
    attack: str
    """After which attack on the left-hand model; none if it was not attacked."""
    dose: int
    model: str
    method: str
    variant: str
    right: float
    left: float
    estimate: float
    """Mean difference over targets, each of them the mean over its seeds."""
    low: float
    """95 % interval of this one mean, not corrected; NaN with fewer than 3 targets."""
    high: float
    seed_means: tuple[float, ...]
    """Mean difference of each seed; the interval does not cover how much seeds differ."""
    margin: float
    """The smallest difference that matters."""
    agree: int
    """Number of targets whose difference has the expected sign."""
    targets: int
    n: int
    """Cells compared (targets times seeds)."""
    planned: int
    """Number of cells for which both sides are planned."""
    diverged: int
    """Number of compared cells that diverged."""
    word: Word
    reason: str
    """Why it is undecided: too few targets, or a difference that is surely too small to matter."""


def verdicts(
    comparisons: pa.Table,
    cells: pa.Table,
    planned: Mapping[tuple[str, str, str], int],
    margin: float,
) -> list[Verdict]:
    """One verdict per score, attack, experiment, dose, model, method and variant.

    Attacks and scores come in the order of `comparisons`, and for each the experiments in the
    paper's order.

    Args:
        cells: the `cells` of the study, for those that diverged.
        planned: cells planned at each dose (targets times seeds) by model, method and variant, so
            that missing ones show.
        margin: the smallest difference that matters, stated beforehand (`verify.margin`); of
            experiments that have none of their own.
    """
    frame = comparisons.to_pandas().merge(
        cells.select([*GROUP, "seed", "unlearned", "diverged"]).to_pandas(),
        how="left",
        on=[*GROUP, "seed", "unlearned"],
    )
    frame["diverged"] = frame["diverged"].eq(True)
    found = []
    for _, of_metric in frame.groupby(["attack", "metric"], sort=False):
        for experiment in EXPERIMENTS:
            rows = of_metric[
                (of_metric["experiment"] == experiment.name)
                & (of_metric["quantity"] == experiment.quantity)
                & (of_metric["role"] == experiment.role)
                & (of_metric["expected"] == experiment.expected)
            ].sort_values("dose", kind="stable")
            if len(rows):
                smallest = experiment.margin or margin
                found += _verdicts(experiment, rows, planned, smallest)
    return found


def _verdicts(
    experiment: Experiment,
    rows: pd.DataFrame,
    planned: Mapping[tuple[str, str, str], int],
    margin: float,
) -> list[Verdict]:
    """Of one experiment on one score after one attack: the family that is corrected together."""
    metric, attack = (str(rows[name].iloc[0]) for name in ("metric", "attack"))
    groups: list[tuple[Any, pd.DataFrame]] = list(rows.groupby(GROUP, sort=False))
    of_targets = [
        group.groupby("unlearned")[["left", "right", "difference"]].mean() for _, group in groups
    ]
    least, most = score_range(metric)
    differences = [means["difference"].to_numpy() for means in of_targets]
    known = infer(differences, (0.0, -margin, margin), bounds=(least - most, most - least))
    words = decide(known, experiment.expected, margin)
    found = []
    for i, ((dose, model, method, variant), group) in enumerate(groups):
        targets, (word, reason) = of_targets[i], words[i]
        seeds = group.groupby("seed")["difference"].mean()
        found.append(
            Verdict(
                experiment,
                metric,
                attack,
                int(dose),
                str(model),
                str(method),
                str(variant),
                float(targets["right"].mean()),
                float(targets["left"].mean()),
                float(known.estimate_G[i]),
                float(known.low_G[i]),
                float(known.high_G[i]),
                tuple(map(float, seeds)),
                margin,
                int(as_expected(targets["difference"], experiment.expected, margin).sum()),
                len(targets),
                len(group),
                min(
                    planned[model, method, variant],
                    planned[model, *other_side(experiment, method, variant)],
                ),
                int(group["diverged"].sum()),
                word,
                reason,
            )
        )
    return found


def decide(known: Inference, expected: Expected, margin: float) -> list[tuple[Word, str]]:
    """A word and a reason for each group; all groups are corrected together.

    Args:
        known: of differences, a value a target, at the thresholds 0, -margin and margin.
        expected: the claim about all of them.
        margin: the smallest difference that matters.
    """
    directed = expected != "zero"
    if directed:
        up_G, down_G = (holm(_two_sided(p[:, 0])) for p in (known.above_GK, known.below_GK))
        claimed_G, against_G = (up_G, down_G) if expected == "positive" else (down_G, up_G)
    else:
        claimed_G = holm(equivalence(known, 1, 2))
        against_G = holm(_two_sided(np.minimum(known.above_GK[:, 2], known.below_GK[:, 1])))
    words: list[tuple[Word, str]] = []
    for i, size in enumerate(known.size_G):
        matters = size >= FEWEST and not (directed and abs(known.estimate_G[i]) < margin)
        small = directed and -margin < known.low_G[i] and known.high_G[i] < margin
        if matters and claimed_G[i] < WRONG_AT_MOST:
            words.append(("supported", ""))
        elif matters and against_G[i] < WRONG_AT_MOST:
            words.append(("contradicted", ""))
        else:
            words.append(("undecided", TOO_SMALL if small else TOO_FEW))
    return words


def _two_sided(p_values: Floats) -> Floats:
    return np.minimum(1, 2 * p_values)


@dataclass(frozen=True)
class Damage:
    """Damage to samples that should stay, for one model, dose, method and variant."""

    role: str
    """other, neighbour (the same kind of sample as the target's) or utility (never trained on)."""
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
    """Mean scores of samples that should stay before and after unlearning.

    Before are the same samples as after: of each cell those that it was asked.
    """
    frame = scores.to_pandas()
    frame = frame[frame["role"].isin(["other", "neighbour", "utility"])]
    state, by = ["role", "model", "dose"], ["method", "variant"]
    sample = [*state, "seed", "sample_id", "metric"]
    before = frame.loc[frame["phase"] == "pre_unlearn", [*sample, "value"]]
    after = frame[frame["phase"] == "post_unlearn"].merge(
        before, on=sample, suffixes=("", "_before")
    )
    ended = cells.to_pandas()
    ended = ended[ended["state"] == "done"].groupby(["model", "dose", *by])["diverged"]
    found = []
    for (role, model, dose, method, variant), group in after.groupby([*state, *by], sort=False):
        outcomes = ended.get_group((model, dose, method, variant))
        found.append(
            Damage(
                str(role),
                str(model),
                int(dose),
                str(method),
                str(variant),
                _means(group, "value_before"),
                _means(group, "value"),
                len(outcomes),
                int(outcomes.sum()),
            )
        )
    return sorted(found, key=lambda d: (d.role, d.model, d.dose))


def _means(scores: pd.DataFrame, column: str) -> dict[str, float]:
    found = scores.groupby("metric")[column].mean()
    return {str(metric): float(value) for metric, value in found.items()}
