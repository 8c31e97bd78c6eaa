"""The moments of a run at which it is disturbed, told by its output and the files of its store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from distforget.loading import load_study
from distforget.plan import Plan, Step, make_plan
from distforget.store import Store
from tests.running import Run, Undisturbed


@dataclass(frozen=True)
class Watch:
    """A run at work on a store, and what was there when it began."""

    run: Run
    store: Store
    plan: Plan
    before: frozenset[str]
    began: float
    unlearn_seconds: float
    ask_seconds: float

    def new(self, steps: Sequence[Step]) -> list[Step]:
        """Those of the steps that it has finished."""
        return [s for s in steps if s.key not in self.before and self.store.is_done(s.key)]

    def committing(self, steps: Sequence[Step]) -> list[Path]:
        """Folders of results of these steps that are being written."""
        keys = {step.key[:16] for step in steps}
        with suppress(FileNotFoundError):
            entries = list(os.scandir(self.store.root / "tmp"))
            return [Path(e.path) for e in entries if e.name[:16] in keys]
        return []

    def claimed(self, steps: Sequence[Step]) -> list[Path]:
        """Claims of these steps; those that died with earlier runs went when this one began."""
        paths = [self.store.root / "claims" / f"{step.key}.lock" for step in steps]
        return [path for path in paths if path.exists()]

    def rewritten(self, table: str) -> bool:
        """Whether this run has put a table of the study in its place."""
        path = self.store.study_table(self.plan.study.name, table)
        return time_of(path) > self.began


def time_of(path: Path) -> float:
    """When a file was written, in seconds; 0: it is not there."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def watch(run: Run, store_root: Path, undisturbed: Undisturbed) -> Watch:
    """Watch a run that has just been started."""
    plan = make_plan(load_study(str(undisturbed.study)))
    store = Store(store_root)
    cells = pd.read_parquet(undisturbed.tables / "cells.parquet")
    return Watch(
        run,
        store,
        plan,
        frozenset(step.key for step in plan.steps() if store.is_done(step.key)),
        time.time(),
        float(cells["unlearn_seconds"].median()),
        float(cells["ask_seconds"].median()),
    )


@dataclass(frozen=True)
class Moment:
    """When to strike.

    `reached` is asked again and again. `exact` says right afterwards whether the store shows that
    it happened then and not later. `worker` picks the worker whose moment it is; None: no worker
    of ours is at work then.
    """

    name: str
    reached: Callable[[Watch], bool]
    exact: Callable[[Watch], bool] = lambda watch: True
    worker: Callable[[Watch, psutil.Process], bool] | None = None


def _called(*names: str) -> Callable[[Watch, psutil.Process], bool]:
    return lambda watch, process: any(n in " ".join(process.cmdline()) for n in names)


def _holds_a_claim(watch: Watch, process: psutil.Process) -> bool:
    """Whether a worker has the claim of a step: the driver is no child of its own."""
    claims = str(watch.store.root / "claims")
    return any(file.path.startswith(claims) for file in process.open_files())


def _writes_a_result(watch: Watch, process: psutil.Process) -> bool:
    return any(f"-{process.pid}-" in p.name for p in watch.committing(watch.plan.cells))


def _asks(watch: Watch) -> list[Step]:
    return [*watch.plan.references, *watch.plan.asks]


def _in_a_cell(watch: Watch, first: float, last: float) -> bool:
    """Whether a cell is at work for so long (s); not a worker's first one, which takes longer."""
    now = time.time()
    ages = [now - time_of(path) for path in watch.claimed(watch.plan.cells)]
    return bool(watch.new(watch.plan.cells)) and any(first < age < last for age in ages)


def _checkpoint(watch: Watch) -> bool:
    places = (watch.store.root / "work" / s.key for s in watch.plan.finetunes)
    return any((place / "checkpoint.safetensors").exists() for place in places)


MOMENTS = (
    Moment("before the data", lambda w: w.run.says("data and models:")),
    Moment(
        "while the data is made",
        lambda w: bool(w.committing([w.plan.dataset])),
        exact=lambda w: not w.new([w.plan.dataset]),
        worker=_called("MapBatches", "write_shard"),
    ),
    Moment("data done, before fine-tuning", lambda w: w.run.says("fine-tuning:")),
    Moment(
        "in fine-tuning, after a checkpoint",
        lambda w: w.run.says("fine-tuning:") and _checkpoint(w),
        exact=lambda w: len(w.new(w.plan.finetunes)) < len(w.plan.finetunes),
        worker=_called("RayTrainWorker"),
    ),
    Moment("fine-tuned, before the floor answers", lambda w: w.run.says("floor, ceiling")),
    Moment(
        "in floor and ceiling answers",
        lambda w: w.run.says("floor, ceiling") and bool(w.claimed(_asks(w))),
        exact=lambda w: len(w.new(_asks(w))) < len(_asks(w)),
        worker=_holds_a_claim,
    ),
    Moment(
        "in a cell, unlearning",
        lambda w: _in_a_cell(w, 0.2 * w.unlearn_seconds, 0.8 * w.unlearn_seconds),
        worker=_holds_a_claim,
    ),
    Moment(
        "in a cell, generating",
        lambda w: _in_a_cell(
            w, w.unlearn_seconds + 0.2 * w.ask_seconds, w.unlearn_seconds + 0.8 * w.ask_seconds
        ),
        worker=_holds_a_claim,
    ),
    Moment(
        "in a cell's commit",
        lambda w: bool(w.committing(w.plan.cells)),
        exact=lambda w: bool(w.committing(w.plan.cells)),
        worker=_writes_a_result,
    ),
    Moment("after a cell's commit", lambda w: bool(w.new(w.plan.cells))),
    Moment(
        "between two tables",
        lambda w: w.rewritten("training"),
        exact=lambda w: not w.rewritten("comparisons"),
    ),
    Moment("tables written, before the end", lambda w: w.rewritten("comparisons")),
)
