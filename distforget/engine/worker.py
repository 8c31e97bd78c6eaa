"""Runs steps on one device: loads a model once and restores its weights for each step."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load_file, save_file

from distforget import cell, cell_batch, schemas, selection
from distforget.attacked import Attacked
from distforget.attacks import attack_of, name_of
from distforget.attempts import DiskError
from distforget.engine import weights
from distforget.engine.crew import Crew
from distforget.engine.data import read_samples
from distforget.engine.models import model_folder
from distforget.engine.rows import cell_identity, identity, trained, write
from distforget.engine.states import ADAPTER, WEIGHTS, Device, Outcome, State
from distforget.method_choice import PLACEBO, SEQUENCE, MethodChoice
from distforget.methods import ResolvedMethod, given, resolve
from distforget.plan import Step, cell_name
from distforget.probes import Evidence
from distforget.steppers import ALONE, Team, TeamLostError, joined
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import track
from distforget.tracks.base import Learner, RetainBatches

SPOILT = (torch.AcceleratorError, TeamLostError)
"""Errors after which a process must end: its device takes nothing more, or its team is lost."""


class Worker:
    """One model in memory; the weights of a step are put back at its start."""

    def __init__(self, study: Study, store: Store, device: Device) -> None:
        self.study, self.store, self.device = study, store, device
        self.state: State | None = None
        self.samples: pa.Table = None
        self.evidence: tuple[str, Any] = "", None
        self.team: Team = ALONE
        self.crew: Crew | None = None
        torch.set_num_threads(device.threads)

    def take(self, state: State) -> None:
        """Have the state's model in memory and its weights at hand."""
        if self.state is not None and self.state.key == state.key:
            return
        self._take_samples(state.dataset)
        other_model = self.state is None or self.state.model.key != state.model.key
        if other_model or state.weights is None:
            model = next(m for m in self.study.models if m.name == state.model.about["model"])
            folder = model_folder(state.model, self.store)
            self.learner: Learner = track(self.study.track).open_learner(
                folder, self.study, model, self.device.name, self.samples
            )
        self.start: Mapping[str, torch.Tensor] = (
            self._own_weights() if state.weights is None else weights.get(state.weights)
        )
        self.state = state
        self.drafts = self._drafts(state.answers)

    def _take_samples(self, dataset: Step) -> None:
        if self.samples is None:
            self.samples = read_samples(dataset, self.store)

    def _own_weights(self) -> Mapping[str, torch.Tensor]:
        if self.learner.slots is not None:
            return self.learner.slots.weights(0)
        return {n: t.clone() for n, t in weights.parameters(self.learner.module).items()}

    def _drafts(self, step: Step | None) -> dict[int, str] | None:
        if step is None or not self.store.is_done(step.key):
            return None
        answers = schemas.read(
            self.store.folder(step.key, whole=False) / "answers.parquet", "answers"
        )
        columns = answers["sample_id"].to_pylist(), answers["answer"].to_pylist()
        return dict(zip(*columns, strict=True))

    def run(self, state: State, step: Step) -> Outcome:
        """Do a step and commit it; an error becomes an attempt in the store, never an exception."""
        try:
            with self.store.claim(step.key, wait=False) as mine:
                if mine:
                    return self._run(state, step)
        except DiskError as error:
            return Outcome(step.key, False, 0.0, str(error), "disk")
        return Outcome(step.key, False, 0.0, "another run is at work on it", "busy")

    def run_together(self, state: State, steps: Sequence[Step]) -> list[Outcome]:
        """As :meth:`run` for each step; cells of adapters share their batches."""
        done: dict[str, Outcome] = {}
        with suppress(DiskError), ExitStack() as claims:  # each, run alone, says so
            mine = [
                step
                for step in steps
                if claims.enter_context(self.store.claim(step.key, wait=False))
                and not self.store.is_done(step.key)
                and not self._runs_alone(step)
            ]
            if len(mine) > 1:
                try:
                    for outcome in self._run_together(state, mine):
                        done[outcome.key] = outcome
                except SPOILT:
                    os._exit(1)  # as below
                except Exception:
                    pass  # whose it is shows when each of them runs alone
        return [done[step.key] if step.key in done else self.run(state, step) for step in steps]

    def _run_together(self, state: State, steps: Sequence[Step]) -> Iterator[Outcome]:
        began = time.monotonic()
        self.take(state)
        filled = self._cells(steps)
        seconds = (time.monotonic() - began) / len(steps)
        for step, fill in zip(steps, filled, strict=True):
            self._commit(step, fill, seconds)
            yield Outcome(step.key, True, seconds)

    def _commit(self, step: Step, fill: Callable[[Path], None], seconds: float) -> None:
        name, threads = self.device.name, self.device.threads
        self.store.commit(step, fill, device=name, threads=threads, seconds=seconds)

    def _run(self, state: State, step: Step) -> Outcome:
        store, began = self.store, time.monotonic()
        if store.is_done(step.key):
            return Outcome(step.key, True, 0.0, kind="others")
        work = {
            "finetune": self._fit,
            "ask": self._ask,
            "reference": self._reference,
            "cell": self._cell,
            "attack": self._attack,
            "probe": self._probe,
        }[step.stage]
        try:
            if step.stage == "probe" and not track(self.study.track).SMALL_MODELS:
                self._take_samples(state.dataset)
            else:
                self.take(state)
                self.learner.repetition = step.about.get("seed", 0)
            fill = work(step)
            seconds = time.monotonic() - began
            self._commit(step, fill, seconds)
        except DiskError:
            raise
        except Exception as error:  # the one place where a step's error becomes a row
            spoilt = isinstance(error, SPOILT)
            out_of_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
            store.record_attempt(
                step,
                "lost" if spoilt or out_of_memory else "failed",
                error_class=type(error).__name__,
                error_message=str(error),
                error_traceback=traceback.format_exc(),
                seconds=time.monotonic() - began,
            )
            if spoilt:
                os._exit(1)  # this process can do nothing more: another one may
            message = f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - began
            return Outcome(step.key, False, seconds, message, "lost" if out_of_memory else "own")
        return Outcome(step.key, True, seconds)

    def _fit(self, step: Step) -> Callable[[Path], None]:
        """Of tracks with small models."""
        rows = selection.training_rows(self.samples, step.about["dose"])
        rows = selection.without(rows, left_out(self.learner, rows, step))
        fit = track(self.study.track).fit
        return trained(step, *fit(self.learner, rows, self.study, step.about["seed"]))

    def _ask(self, step: Step) -> Callable[[Path], None]:
        study = self.study
        cell.put_back(self.learner, self.start)
        asked = selection.asked_rows(self.samples, range(1, study.unlearn_targets + 1), study)
        # A fine-tuned model mostly says what it was taught: its best draft.
        taught = dict(zip(asked["sample_id"].to_pylist(), asked["answer"].to_pylist(), strict=True))
        drafts = taught if step.about["phase"] == "pre_unlearn" else None
        answers = cell.ask(self.learner, asked, identity(step, study), drafts)
        return lambda folder: write({"answers": answers}, folder)

    def reach(self, step: Step) -> None:
        """Put the learner at the weights that an ask or cell step asked; `take` its start before.

        Weights that were kept are loaded. A cell that kept none is unlearned again.
        """
        folder = self.store.folder(step.key)
        if (folder / ADAPTER).is_dir():
            cell.put_back(self.learner, load_file(folder / ADAPTER / "adapter_model.safetensors"))
        elif (folder / WEIGHTS).is_file():
            cell.put_back(self.learner, load_file(folder / WEIGHTS))
        elif step.stage == "cell":
            retain = self.retain_batches([step])
            cell.unlearn(self.learner, self.start, self.samples, self.what(step), retain)
        else:
            cell.put_back(self.learner, self.start)

    def _answered(self, state: Step) -> tuple[pa.Table, pa.Table]:
        """The samples that a state was asked, and its answers."""
        answers = schemas.read(
            self.store.folder(state.key, whole=False) / "answers.parquet", "answers"
        )
        asked = self.samples.take(answers["sample_id"])  # an id is the position in the dataset
        return asked, answers

    def _attack(self, step: Step) -> Callable[[Path], None]:
        asked, before = self._answered(step.state)
        self.reach(step.state)
        config = next(c for c in self.study.attacks if name_of(c) == step.about["attack"])
        drafts = dict(
            zip(before["sample_id"].to_pylist(), before["answer"].to_pylist(), strict=True)
        )
        with self.learner.merged() as module:
            what = self.what(step.state) if step.state.stage == "cell" else None
            attacked = Attacked(self.learner, module, self.samples, what)
            attack = attack_of(config)
            if attack.run is not None:
                attack.run(attacked, config)
            if attack.asks is not None:
                asked = attack.asks(asked, self.samples, config)
            answers = cell.ask(self.learner, asked, identity(step, self.study), drafts)
            kept = self._kept_weights()
        return lambda folder: write({"answers": answers}, folder, kept)

    def _probe(self, step: Step) -> Callable[[Path], None]:
        config = next(c for c in self.study.probes if c.kind == step.about["probe"])
        evidence = self._evidence(step.inputs["state"])
        tables = cell.scores(evidence, config, identity(step, self.study))
        return lambda folder: write(tables, folder)

    def _evidence(self, state: Step) -> Evidence:
        """What probes may ask of a state; the next probe of the same state takes what is there."""
        key, kept = self.evidence
        evidence: Evidence = kept
        if key != state.key:
            self.evidence = "", None  # if what follows fails, the weights are no longer its own
            asked, answers = self._answered(state)
            of_track = track(self.study.track)
            if of_track.SMALL_MODELS:
                cell.put_back(self.learner, self.start)
                evidence = self.learner.evidence(asked)
            else:
                evidence = of_track.stored_evidence(asked, answers, self.samples)
            self.evidence = state.key, evidence
        return evidence

    def _reference(self, step: Step) -> Callable[[Path], None]:
        cell.put_back(self.learner, self.start)
        rows, batches = self._retain(step)
        found = self.learner.reference(self.learner.encode(rows), batches)
        return lambda folder: save_file(found, folder / "reference.safetensors")

    def _retain(self, step: Step) -> tuple[pa.Table, list[list[int]]]:
        study = self.study
        rows = selection.retain_rows(self.samples, step.about["dose"], step.about["seed"], study)
        batches = selection.retain_batches(len(rows), study.unlearn.retain_batch_size)
        return rows, batches

    def _cell(self, step: Step) -> Callable[[Path], None]:
        if self.learner.slots is not None and self.takes_steps(step):
            return self._cells([step])[0]
        ((answers, outcome),) = self._computed([step])
        tables = {"answers": answers, "cells": self._row(step, outcome)}
        kept = self._kept_weights()
        return lambda folder: write(tables, folder, kept)

    def _computed(self, steps: Sequence[Step]) -> list[tuple[pa.Table, dict[str, Any]]]:
        """Answers and columns of each cell, from all workers of the team."""
        assert self.state is not None
        own = partial(self.parts, self.state, steps)
        if self.crew is None:
            return own()
        parts = self.crew.all(own, "parts", self.state, steps)
        answers = [joined([of_cell for of_cell, _ in found]) for found in zip(*parts, strict=True)]
        return list(zip(answers, (columns for _, columns in parts[0]), strict=True))

    def parts(self, state: State, steps: Sequence[Step]) -> list[tuple[pa.Table, dict[str, Any]]]:
        """Unlearn cells and ask what each worker of a team asks; one cell, or some of adapters."""
        self.take(state)
        whats = [self.what(step) for step in steps]
        retain = self.retain_batches(steps)
        identities = [identity(step, self.study) for step in steps]
        shared = self.learner, self.start, self.samples
        if self.learner.slots is not None and self.takes_steps(steps[0]):
            return cell_batch.run(*shared, whats, retain, identities, self.drafts, self.team)
        return [cell.run(*shared, whats[0], retain, identities[0], self.drafts, self.team)]

    def _kept_weights(self) -> dict[str, torch.Tensor]:
        """A copy of the model's weights for its probes; none of a model that is not small."""
        if not track(self.study.track).SMALL_MODELS:
            return {}
        return {n: t.clone() for n, t in weights.parameters(self.learner.module).items()}

    def _cells(self, steps: Sequence[Step]) -> list[Callable[[Path], None]]:
        """Cells of adapters in one batch; each also leaves its adapter."""
        slots = self.learner.slots
        assert slots is not None
        found = self._computed(steps)
        adapters = [slots.weights(slot) for slot in range(len(steps))]

        def filling(number: int) -> Callable[[Path], None]:
            answers, outcome = found[number]
            tables = {"answers": answers, "cells": self._row(steps[number], outcome)}

            def fill(folder: Path) -> None:
                write(tables, folder)
                slots.write(adapters[number], folder / ADAPTER)

            return fill

        return [filling(number) for number in range(len(steps))]

    def what(self, step: Step) -> cell.Cell:
        """What a cell step unlearns, and how."""
        about = step.about
        choice = next((m for m in self.study.methods if _is_choice(m, about)), None)
        return cell.Cell(
            self.study,
            resolve(choice) if choice else given(about["method"]),
            about["unlearned"],
            about["dose"],
            about["seed"],
            about["variant"] == PLACEBO,
            tuple(step.config.get("earlier", ())),
        )

    def takes_steps(self, step: Step) -> bool:
        """Whether a cell is unlearned here; others were retrained, or unlearned elsewhere."""
        return self.what(step).method.unlearns

    def _runs_alone(self, step: Step) -> bool:
        """Whether a cell cannot share a batch: it unlearns more than one sample."""
        what = self.what(step)
        return bool(what.earlier) or unlearns_more(what.method)

    def retain_batches(self, steps: Sequence[Step]) -> RetainBatches | None:
        """Of cells of one state; None if no method of theirs has a regulariser.

        They hold nothing that a cell which unlearns more than its target unlearns: it runs alone.
        """
        step = next((step for step in steps if "reference" in step.inputs), None)
        if step is None:
            return None
        folder = self.store.folder(step.inputs["reference"].key)
        rows, batches = self._retain(step)
        reference = load_file(folder / "reference.safetensors")
        found = RetainBatches(self.learner.encode(rows), batches, reference)
        what = self.what(step)
        if not unlearns_more(what.method):
            return found
        unlearned = cell.forget_rows(self.learner, self.samples, what)["sample_id"]
        gone = pc.is_in(rows["sample_id"], unlearned.combine_chunks())
        return found.without(np.flatnonzero(gone).tolist())

    def _row(self, step: Step, outcome: Mapping[str, Any]) -> pa.Table:
        row = {
            **cell_identity(step, self.study),
            "cell": cell_name(step),
            "key": step.key,
            "state": "done",
            "attempts": len(self.store.attempts(step.key)),
            **outcome,
        }
        return schemas.from_rows("cells", [row])


def unlearns_more(method: ResolvedMethod) -> bool:
    """Whether a method unlearns other training samples with its target."""
    return method.enhanced is not None and method.enhanced.unlearns_more


def left_out(learner: Learner, rows: pa.Table, step: Step) -> pa.Table:
    """Which of these rows a training run leaves out: a target and those nearest to it, or none."""
    if "without" not in step.about:
        return rows.slice(0, 0)
    target = selection.target_row(rows, step.about["without"])
    nearest = cell.nearest_rows(learner, rows, target, step.about["nearest"])
    return pa.concat_tables([target, nearest])


def _is_choice(choice: MethodChoice, about: Mapping[str, Any]) -> bool:
    """Whether a cell is of this choice; those of a placebo or in turn are of the plain one."""
    variant = "plain" if about["variant"] in (PLACEBO, SEQUENCE) else about["variant"]
    same = (choice.name, choice.variant_name) == (about["method"], variant)
    return same and choice.is_of(about["model"])
