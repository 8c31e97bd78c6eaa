"""Tables beside the verdicts, which the terminal and the page show alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd
import pyarrow as pa

from distforget.analysis.doses import dose_response, slopes
from distforget.analysis.evidence import evidence, meanings, shown
from distforget.analysis.separation import separation
from distforget.analysis.sequences import sequences
from distforget.analysis.verdicts import Damage, damages
from distforget.method_choice import PLACEBO
from distforget.metrics import CHOICE_ACCURACY
from distforget.report.words import interval, method_name
from distforget.study import Study

KEPT = ("answer_probability", "answer_perplexity", "label_probability", CHOICE_ACCURACY)
"""Scores that the table of damage shows beside those of knowledge."""


@dataclass(frozen=True)
class Shown:
    """A table as people read it."""

    title: str
    caption: str
    columns: Sequence[str]
    words: int
    """Number of columns, the first ones, that hold words; the others hold numbers."""
    rows: Sequence[Sequence[str]]


def tables_of(
    study: Study, scores: pa.Table, cells: pa.Table, metrics: Sequence[str]
) -> list[Shown]:
    """The tables beside a study's verdicts, without those that would be empty.

    Args:
        scores: of states that were not attacked.
        metrics: the scores that say what a model knows, the one to lean on first.
    """
    if not len(scores):
        return []
    found = [damage(damages(scores, cells), metrics)]
    if study.verify.unseen:
        found += [control(separation(scores, study.metric), study.metric), of_evidence(scores)]
    if study.in_turn:
        found += [in_turn(sequences(study, scores, metric), metric) for metric in metrics]
    if len(study.doses) > 2:
        found += [doses(scores, *of) for of in product(metrics, ("target", "similar"))]
    return [table for table in found if table.rows]


def damage(found: Sequence[Damage], knowledge: Sequence[str]) -> Shown:
    """Damage, one row per role, model, method and dose."""
    wanted = dict.fromkeys([*knowledge, *KEPT])
    metrics = [metric for metric in wanted if any(metric in d.before for d in found)]
    return Shown(
        "Damage to samples that should stay",
        "Mean scores before and after unlearning, over all targets unlearned.",
        ["samples", "model", "method", "dose", *metrics, "diverged"],
        3,
        [
            [
                d.role, d.model, method_name(d.method, d.variant), str(d.dose),
                *(_change(d, metric) for metric in metrics), f"{d.diverged} of {d.cells}",
            ]
            for d in found
        ],
    )  # fmt: skip


def _change(damage: Damage, metric: str) -> str:
    if metric not in damage.before:
        return ""
    return f"{damage.before[metric]:.2f} → {damage.after[metric]:.2f}"


def control(found: pd.DataFrame, metric: str) -> Shown:
    """How well the score separates trained from never-trained samples, by model and dose."""
    return Shown(
        "Control: can the score tell trained from never-trained samples?",
        f"{metric} before unlearning. If there is no gap here, nothing can be said about targets.",
        [
            "model", "dose", "trained", "never trained", "AUC", "TPR at 1 % FPR", "n",
            "n never trained",
        ],
        1,
        [
            [
                str(r.model), str(r.dose), f"{r.trained:.2f}", f"{r.unseen:.2f}", f"{r.auc:.3f}",
                f"{r.tpr:.2f}", str(r.n_trained), str(r.n_unseen),
            ]
            for r in found.itertuples()
        ],
    )  # fmt: skip


def of_evidence(scores: pa.Table) -> Shown:
    """Evidence about targets, one row per model, state and dose."""
    found = evidence(scores)
    return Shown(
        "The target itself: is it gone, and is its influence gone?",
        f"{meanings(found.columns)} p: the probability of such a value for a never-trained sample, "
        "over all targets.",
        list(found.columns),
        2,
        [
            [*map(str, row[:3]), *map(shown, found.columns[3:-1], row[3:-1]), str(row[-1])]
            for row in found.itertuples(index=False)
        ],
    )


def in_turn(found: pd.DataFrame, metric: str) -> Shown:
    """What is left of targets that are unlearned one after another, one row per count."""
    return Shown(
        f"Requests one after another on the same weights: {metric}",
        "Before: before unlearning. Alone: each target unlearned alone. First: what is left of the "
        "first request after so many; last: of the one just made; all: the mean of all so far. "
        "Others: what is left of other samples, which should stay.",
        ["model", "method", "samples", "dose", "requests", "before", "alone", "first", "last",
         "all", "others"],
        3,
        [
            [
                *(str(row[name]) for name in ("model", "method", "role", "dose", "requests")),
                *(f"{row[name]:.2f}" for name in ("before", "alone", "first", "last", "all")),
                "" if math.isnan(row["others"]) else f"{row['others']:.2f}",
            ]
            for row in found.to_dict("records")
        ],
    )  # fmt: skip


def doses(scores: pa.Table, metric: str, role: str) -> Shown:
    """Dose-response, one row per model and state; placebo is shown as a band."""
    found, sloped = dose_response(scores, metric, role), slopes(scores, metric, role)
    every = sorted(found["dose"].unique())
    of_states = {
        (row["model"], row["state"]): f"{row['slope']:+.3f} {interval(row['lower'], row['upper'])}"
        for row in sloped.to_dict("records")
    }
    return Shown(
        f"Dose-response: {metric} of {role} samples after unlearning",
        "Means over targets, by the number of similar samples in the training data. Placebo: the "
        "band over targets and methods when an unrelated sample is unlearned. Slope: the rise for "
        "each doubling of 1 + dose, with its 95 % interval over targets.",
        ["model", "state", *map(str, every), "slope [95 %]", "n"],
        2,
        [
            [
                str(model), str(state), *_by_dose(rows, str(state), every),
                of_states.get((model, state), ""),
                "-".join(sorted({str(n) for n in rows["n"]}, key=int)),
            ]
            for (model, state), rows in found.groupby(["model", "state"])
        ],
    )  # fmt: skip


def _by_dose(rows: pd.DataFrame, state: str, every: Sequence[int]) -> list[str]:
    said = {
        row["dose"]: f"{row['low']:.2f}-{row['high']:.2f}"
        if state == PLACEBO
        else f"{row['mean']:.2f}"
        for row in rows.to_dict("records")
    }
    return [said.get(dose, "") for dose in every]
