"""The tables, plan and missing cells of a study, from which figures are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from distforget import schemas
from distforget.analysis.comparisons import (
    EXPERIMENTS,
    Experiment,
    compare,
    kind_of,
    knowledge_metrics,
    written_name,
)
from distforget.analysis.states import unattacked
from distforget.analysis.verdicts import Verdict, verdicts
from distforget.attacks import UNATTACKED
from distforget.attempts import MissingTableError
from distforget.data import paper_name
from distforget.errors import UsageError
from distforget.method_choice import SEQUENCE
from distforget.payload import flat
from distforget.plan import Plan, cell_name
from distforget.probes import metric_named
from distforget.provenance import recorded
from distforget.sources import Track
from distforget.store import Store
from distforget.study import Study

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
"""Comparisons that the paper draws without a claim of their own."""

PHASES = {"before fine-tuning": "pre_finetune", "before unlearning": "pre_unlearn"}
CELL = ["model", "dose", "method", "variant", "seed", "unlearned"]


class NothingToShowError(Exception):
    """The study has nothing that a figure would show; the message says what it lacks."""


@dataclass(frozen=True)
class Images:
    """Further data of an image study."""

    dataset: str
    """What the paper calls it: MNIST, MNIST noise, FashionMNIST, CIFAR10; else the study's name."""
    samples: pa.Table
    reconstructions: pa.Table
    nearest: Mapping[tuple[str, str], int]
    """Number of samples that enhanced methods unlearn with a target, by method and variant."""


@dataclass(frozen=True)
class StudyTables:
    """The tables of a study, from all steps that are done."""

    name: str
    metric: str
    margin: float
    paths: Mapping[str, str]
    """Path of each model by its name in the study."""
    planned: pd.DataFrame
    """One row per cell: model, dose, method, variant, seed, unlearned; in the plan's order."""
    every_score: pa.Table
    """Table `scores`."""
    cells: pa.Table
    date: str
    """When the tables were written."""
    note: str = ""
    """A note in every caption, e.g. that the tables are synthetic."""
    images: Images | None = None
    """Further data of an image study; None for text."""
    texts: pa.Table | None = None
    """Table `samples` of a study of text; None for images."""
    chance: float = math.nan
    """Accuracy of guessing on multiple-choice questions; NaN if there are none."""

    @property
    def track(self) -> Track:
        """The study's track."""
        return "image" if self.images else "text"

    @property
    def of_images(self) -> Images:
        """Further data of an image study.

        Raises:
            NothingToShowError: it is a study of text.
        """
        if self.images is None:
            raise NothingToShowError("it needs a study of images")
        return self.images

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What several figures need and one of them has computed."""
        return {}

    @property
    def of_text(self) -> pa.Table:
        """Table `samples` of a study of text.

        Raises:
            NothingToShowError: it is a study of images, or its data are not built yet.
        """
        if self.texts is None:
            raise NothingToShowError("it needs the samples of a study of text")
        return self.texts

    @property
    def score(self) -> str:
        """Name of the score on axes."""
        if self.images:
            return metric_named(self.metric).title or self.metric
        return "KM"

    @cached_property
    def scores(self) -> pa.Table:
        """Scores of model states that were not attacked."""
        return unattacked(self.every_score)

    @cached_property
    def metrics(self) -> list[str]:
        """The scores that say what a model knows, the one to lean on first."""
        return knowledge_metrics(self.metric, self.scores)

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
        """Table `comparisons`, with the experiments that are only shown."""
        every = (*EXPERIMENTS, *SHOWN_ONLY)
        found = compare(self.scores, [self.metric], self.margin, every).to_pandas()
        merged: pd.DataFrame = found.merge(self.outcomes[[*CELL, "diverged"]], on=CELL)
        return merged

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The planned cells with state (done, failed, blocked, lost, or not run) and diverged."""
        table = self.cells.select([*CELL, "state", "diverged"]).to_pandas()
        found = self.planned.merge(table, how="left", on=CELL)
        found["diverged"] = found["diverged"].eq(True)
        return found.fillna({"state": "not run"})

    @cached_property
    def every_verdict(self) -> list[Verdict]:
        """Verdicts of all experiments on each score of knowledge, without and after each attack."""
        comparisons = compare(self.every_score, self.metrics, self.margin)
        return verdicts(comparisons, self.cells, cells_a_dose(self.planned), self.margin)

    @property
    def verdicts(self) -> list[Verdict]:
        """Verdicts on model states that were not attacked."""
        return [verdict for verdict in self.every_verdict if verdict.attack == UNATTACKED]

    @property
    def about(self) -> str:
        """The end of a caption of what shows the study's score."""
        return self.about_of("")

    def about_of(self, metric: str) -> str:
        """The end of a caption of what shows a score; empty: the study's."""
        note = f" {self.note}." if self.note else ""
        of_km = self.track == "text" and metric in ("", self.metric)
        score = f"KM = {self.metric}. " if of_km else ""
        return f"{score}Study {self.name}, tables of {self.date}.{note}"

    def states(self, model: str, method: str, variant: str, doses: Sequence[int]) -> pd.Series[str]:
        """State of each target's cells at some doses: the worst of failed, not run and done."""
        cells = self.outcomes
        mine = (cells["model"] == model) & (cells["method"] == method)
        cells = cells[mine & (cells["variant"] == variant) & cells["dose"].isin(doses)]
        worst = {"done": 0, "not run": 1, "blocked": 2, "lost": 2, "failed": 2}
        ranks = cells["state"].map(worst).groupby(cells["unlearned"]).max()
        return ranks.map({0: "done", 1: "not run", 2: "failed"})

    def levels(self, model: str, dose: int, role: str, metric: str = "") -> dict[str, float]:
        """Mean score of a role before fine-tuning and before unlearning, over targets and seeds.

        Args:
            metric: the score; empty: the study's.
        """
        scores = self.scores.to_pandas()
        scores = scores[(scores["metric"] == (metric or self.metric)) & (scores["model"] == model)]
        scores = scores[
            (scores["role"] == role) & (scores["dose"].isna() | (scores["dose"] == dose))
        ]
        means = scores.groupby("phase")["value"].mean()
        return {name: float(means[phase]) for name, phase in PHASES.items() if phase in means}

    def methods(self, model: str, kind: str = "") -> list[tuple[str, str]]:
        """(method, variant) planned for a model, those of a kind (plain, enhanced, placebo).

        Those that unlearn several targets in turn are left out.
        """
        rows = self.planned[self.planned["model"] == model]
        pairs = rows[["method", "variant"]].drop_duplicates().itertuples(index=False, name=None)
        alone = [(m, v) for m, v in pairs if v != SEQUENCE]
        return [(m, v) for m, v in alone if not kind or kind_of(v) == kind]


def planned_cells(plan: Plan) -> pd.DataFrame:
    """One row per planned cell."""
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
        written_name(study.metric, scores),
        study.verify.margin,
        {model.name: model.title for model in study.models},
        planned_cells(plan),
        scores,
        store.read_study_table(study.name, "cells"),
        datetime.fromtimestamp(written, UTC).date().isoformat(),
        images=_images(study, store) if study.track == "image" else None,
        texts=_samples(study, store) if study.track == "text" else None,
        chance=_chance(study, store) if study.questions else math.nan,
    )


def _chance(study: Study, store: Store) -> float:
    """See `StudyTables.chance`."""
    counts = pc.list_value_length(_samples(study, store)["choices"]).drop_null().to_numpy()
    return float((1 / counts).mean()) if len(counts) else math.nan


def _samples(study: Study, store: Store) -> pa.Table:
    try:
        return store.read_study_table(study.name, "samples")
    except MissingTableError:  # a run that was ended before its data were built
        return schemas.empty("samples")


def _images(study: Study, store: Store) -> Images:
    return Images(
        paper_name(study.data),
        _samples(study, store),
        unattacked(store.read_study_table(study.name, "reconstructions")),
        {
            (choice.name, choice.variant_name): choice.enhanced.nearest
            for choice in study.methods
            if choice.enhanced
        },
    )


def read_current(plan: Plan, store: Store) -> StudyTables:
    """As :func:`read`, but refuses tables that were written under other settings.

    Raises:
        UsageError: a cell of table `cells` is not planned, or has another key.
    """
    tables = read(plan, store)
    keys = {cell_name(step): step.key for step in plan.cells}
    for row in tables.cells.select(["cell", "key"]).to_pylist():
        if keys.get(row["cell"]) != row["key"]:
            raise UsageError(
                f"study {plan.study.name}: its tables were written under other settings (cell "
                f"{row['cell']}); run it again, what is done is not computed twice"
            )
    return tables


def facts_of(plan: Plan, store: Store, cells: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Where some cells were computed: all values of each fact, e.g. of the device.

    Raises:
        StoreError: a result is gone or damaged.
    """
    wanted = set(cells)
    found: dict[str, set[str]] = {}
    for step in plan.cells:
        if cell_name(step) in wanted:
            for name, value in flat(recorded(store.manifest(step.key))).items():
                found.setdefault(name, set()).add(str(value))
    return {name: tuple(sorted(values)) for name, values in found.items()}
