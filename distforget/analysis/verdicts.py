"""Turns comparisons into verdicts: estimate, interval, targets that agree; and measures damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from distforget.analysis.intervals import (
    FEWEST,
    Floats,
    Inference,
    equivalence,
    exact_p,
    holm,
    infer,
)
from distforget.attacks import UNATTACKED

WRONG_AT_MOST = 0.05
"""Probability that any verdict of an experiment is wrong by chance."""
EXACT_BELOW = 8
"""With fewer targets than this the exact test stands beside the interval."""
GROUP = ["dose", "model", "method", "variant"]

TOO_FEW, TOO_SMALL = "too few targets", "too small"

Word = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One experiment for one model, method, variant and dose.

    A claim of a direction is supported when the mean difference has it, surely (two-sided, Holm
    over the verdicts of its family) and by no less than the margin; contradicted when
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
    exact_p: float | None
    """Two-sided p-value of the exact sign-flip test against 0; None from EXACT_BELOW targets on."""
    seed_means: tuple[float, ...]
    """Mean difference of each seed; with one alone, the interval is of this one training run."""
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
    family: int
    """How many verdicts are corrected together, this one included (see `verdicts`)."""
    leading: bool
    """True for those on the score to lean on, of models that were not attacked."""


def verdicts(
    comparisons: pa.Table,
    cells: pa.Table,
    planned: Mapping[tuple[str, str, str], int],
    margin: float,
) -> list[Verdict]:
    """One verdict per score, attack, experiment, dose, model, method and variant.

    Attacks and scores come in the order of `comparisons`, and for each the experiments in the
    paper's order. An experiment's verdicts on the first score, without attack, are one family,
    whose errors are bounded together; those on its other scores and after attacks are another one.

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
    parts = list(frame.groupby(["attack", "metric"], sort=False))
    found: dict[tuple[int, int], list[Verdict]] = {}
    for place, experiment in enumerate(EXPERIMENTS):
        smallest = experiment.margin or margin
        every = {
            number: _Compared.of(str(attack), str(metric), rows, smallest)
            for number, ((attack, metric), part) in enumerate(parts)
            if len(rows := _rows_of(experiment, part))
        }
        first = next((n for n, one in every.items() if one.attack == UNATTACKED), None)
        for leading in (True, False):
            mine = {n: one for n, one in every.items() if (n == first) == leading}
            said = _family(experiment, list(mine.values()), planned, smallest, leading)
            found |= {(n, place): some for n, some in zip(mine, said, strict=True)}
    return [verdict for key in sorted(found) for verdict in found[key]]


def _rows_of(experiment: Experiment, comparisons: pd.DataFrame) -> pd.DataFrame:
    mine = (
        (comparisons["experiment"] == experiment.name)
        & (comparisons["quantity"] == experiment.quantity)
        & (comparisons["role"] == experiment.role)
        & (comparisons["expected"] == experiment.expected)
    )
    return comparisons[mine].sort_values("dose", kind="stable")


@dataclass(frozen=True)
class _Compared:
    """The differences of an experiment on one score after one attack, and what they show."""

    attack: str
    metric: str
    groups: list[tuple[Any, pd.DataFrame]]
    """Of each dose, model, method and variant, a row a cell."""
    known: Inference
    """Of each group."""

    @classmethod
    def of(cls, attack: str, metric: str, rows: pd.DataFrame, margin: float) -> _Compared:
        groups = list(rows.groupby(GROUP, sort=False))
        differences = [
            group.pivot_table(index="unlearned", columns="seed", values="difference").to_numpy()
            for _, group in groups
        ]
        least, most = score_range(metric)
        known = infer(differences, (0.0, -margin, margin), bounds=(least - most, most - least))
        return cls(attack, metric, groups, known)


def _family(
    experiment: Experiment,
    every: Sequence[_Compared],
    planned: Mapping[tuple[str, str, str], int],
    margin: float,
    leading: bool,
) -> list[list[Verdict]]:
    """Verdicts of one experiment that are corrected together, a list for each score and attack."""
    if not every:
        return []
    known = Inference.joined([one.known for one in every])
    words = iter(decide(known, experiment.expected, margin))
    return [
        [
            _verdict(experiment, one, i, next(words), planned, margin, len(known.size_G), leading)
            for i in range(len(one.groups))
        ]
        for one in every
    ]


def _verdict(
    experiment: Experiment,
    compared: _Compared,
    number: int,
    said: tuple[Word, str],
    planned: Mapping[tuple[str, str, str], int],
    margin: float,
    family: int,
    leading: bool,
) -> Verdict:
    (dose, model, method, variant), group = compared.groups[number]
    known = compared.known
    targets = group.groupby("unlearned")[["left", "right", "difference"]].mean()
    few = FEWEST <= len(targets) < EXACT_BELOW
    return Verdict(
        experiment=experiment,
        metric=compared.metric,
        attack=compared.attack,
        dose=int(dose),
        model=str(model),
        method=str(method),
        variant=str(variant),
        right=float(targets["right"].mean()),
        left=float(targets["left"].mean()),
        estimate=float(known.estimate_G[number]),
        low=float(known.low_G[number]),
        high=float(known.high_G[number]),
        exact_p=exact_p(targets["difference"].to_numpy()) if few else None,
        seed_means=tuple(map(float, group.groupby("seed")["difference"].mean())),
        margin=margin,
        agree=int(as_expected(targets["difference"], experiment.expected, margin).sum()),
        targets=len(targets),
        n=len(group),
        planned=min(
            planned[model, method, variant],
            planned[model, *other_side(experiment, method, variant)],
        ),
        diverged=int(group["diverged"].sum()),
        word=said[0],
        reason=said[1],
        family=family,
        leading=leading,
    )


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
