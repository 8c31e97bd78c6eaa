"""What figures are drawn from: a study's tables, what was planned, and what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import EXPERIMENTS, Experiment, compare, kind_of
from distforget.analysis.verdicts import Verdict, verdicts
from distforget.plan import Plan
from distforget.store import Store

SHOWN_ONLY = (
    Experiment(
        "E4", "post-pre_unlearn", "target", "none", "plain", "negative",
        "target, without similar samples: after minus before unlearning",
    ),
    Experiment(
        "E4", "post-pre_finetune", "target", "none", "plain", "zero",
        "target, without similar samples: after unlearning minus before fine-tuning",
    ),
    Experiment(
        "E7", "post-pre_unlearn", "similar", "all", "enhanced", "negative",
        "enhanced: similar samples, after minus before unlearning",
    ),
)  # fmt: skip
"""Drawn in the paper beside its claims, without a claim of their own."""

PHASES = {"before fine-tuning": "pre_finetune", "before unlearning": "pre_unlearn"}
CELL = ["model", "dose", "method", "variant", "seed", "unlearned"]


class NothingToShowError(Exception):
    """The study has nothing that a figure would show; the message says what it lacks."""


@dataclass(frozen=True)
class StudyTables:
    """A study as far as it is done."""

    name: str
    metric: str
    margin: float
    paths: Mapping[str, str]
    """Path of each model by its name in the study."""
    planned: pd.DataFrame
    """A row a cell: model, dose, method, variant, seed, unlearned; in the plan's order."""
    scores: pa.Table
    cells: pa.Table
    date: str
    """When the tables were written."""
    note: str = ""
    """Said in every caption, e.g. that the tables are synthetic."""

    @property
    def track(self) -> str:
        """text or image; text while nothing is done."""
        return str(self.scores["track"][0]) if len(self.scores) else "text"

    @property
    def doses(self) -> list[int]:
        """Doses planned, in rising order."""
        return sorted(int(dose) for dose in self.planned["dose"].unique())

    @property
    def targets(self) -> int:
        """The last target that is unlearned; they are numbered from 1."""
        return int(self.planned["unlearned"].max())

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Table `comparisons`, with what is shown only."""
        every = (*EXPERIMENTS, *SHOWN_ONLY)
        found = compare(self.scores, self.metric, self.margin, every).to_pandas()
        merged: pd.DataFrame = found.merge(self.outcomes[[*CELL, "diverged"]], on=CELL)
        return merged

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The planned cells with state (done, failed, blocked, or not run) and diverged."""
        table = self.cells.select([*CELL, "state", "diverged"]).to_pandas()
        found = self.planned.merge(table, how="left", on=CELL)
        found["diverged"] = found["diverged"].eq(True)
        return found.fillna({"state": "not run"})

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Of all experiments."""
        comparisons = compare(self.scores, self.metric, self.margin)
        return verdicts(comparisons, self.cells, cells_a_dose(self.planned), self.margin)

    @property
    def about(self) -> str:
        """The end of every caption."""
        note = f" {self.note}." if self.note else ""
        return f"KM = {self.metric}. Study {self.name}, tables of {self.date}.{note}"

    def states(self, model: str, method: str, variant: str, doses: Sequence[int]) -> pd.Series[str]:
        """State of each planned target's cells at some doses: failed if any, else not run, done."""
        cells = self.outcomes
        mine = (cells["model"] == model) & (cells["method"] == method)
        cells = cells[mine & (cells["variant"] == variant) & cells["dose"].isin(doses)]
        worst = {"done": 0, "not run": 1, "blocked": 2, "failed": 2}
        ranks = cells["state"].map(worst).groupby(cells["unlearned"]).max()
        return ranks.map({0: "done", 1: "not run", 2: "failed"})

    def levels(self, model: str, dose: int, role: str) -> dict[str, float]:
        """Mean score of a role before fine-tuning and before unlearning, over targets and seeds."""
        scores = self.scores.to_pandas()
        scores = scores[(scores["metric"] == self.metric) & (scores["model"] == model)]
        scores = scores[
            (scores["role"] == role) & (scores["dose"].isna() | (scores["dose"] == dose))
        ]
        means = scores.groupby("phase")["value"].mean()
        return {name: float(means[phase]) for name, phase in PHASES.items() if phase in means}

    def methods(self, model: str, kind: str = "") -> list[tuple[str, str]]:
        """(method, variant) planned for a model, those of a kind (plain, enhanced, placebo)."""
        rows = self.planned[self.planned["model"] == model]
        pairs = rows[["method", "variant"]].drop_duplicates().itertuples(index=False, name=None)
        return [(m, v) for m, v in pairs if not kind or kind_of(v) == kind]


def planned_cells(plan: Plan) -> pd.DataFrame:
    """A row a planned cell."""
    return pd.DataFrame([{name: step.about[name] for name in CELL} for step in plan.cells])


def cells_a_dose(planned: pd.DataFrame) -> dict[tuple[str, str, str], int]:
    """Cells planned at each dose (targets times seeds) by model, method and variant."""
    by = ["model", "method", "variant"]
    counted = planned.groupby(by, as_index=False).size().to_dict("records")
    doses = planned["dose"].nunique()
    return {(row["model"], row["method"], row["variant"]): row["size"] // doses for row in counted}


def read(plan: Plan, store: Store) -> StudyTables:
    """The tables of a study from its store.

    Raises:
        MissingTableError: the study was not run.
        UsageError: a table is corrupt or of another schema.
    """
    study = plan.study
    scores = store.read_study_table(study.name, "scores")
    written = store.study_table(study.name, "scores").stat().st_mtime
    return StudyTables(
        study.name,
        study.verify.metric,
        study.verify.margin,
        {model.name: model.path for model in study.models},
        planned_cells(plan),
        scores,
        store.read_study_table(study.name, "cells"),
        datetime.fromtimestamp(written, UTC).date().isoformat(),
    )
