"""Runs a plan: unfinished steps in the order of their inputs, then the study's tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from distforget.attempts import DiskError
from distforget.data import TextData
from distforget.engine import weights
from distforget.engine.assemble import assemble
from distforget.engine.cells import run_cells
from distforget.engine.cluster import (
    Share,
    available_memory,
    cell_share,
    check_memory,
    connected,
    object_store_bytes,
    train_groups,
    train_threads,
)
from distforget.engine.data import build_dataset, check_metrics, check_nearest, doubts
from distforget.engine.finetune import finetune
from distforget.engine.groups import by_start, deal
from distforget.engine.left import is_complete, open_steps
from distforget.engine.listening import Listener, Summary
from distforget.engine.models import fetch_model, weight_bytes, worker_bytes
from distforget.engine.pools import run_groups
from distforget.engine.states import WEIGHTS, Outcome, State, scored_state, tuned_state
from distforget.errors import UsageError
from distforget.methods import resolve
from distforget.placement import Placement
from distforget.plan import Plan, Step
from distforget.remote import open_store
from distforget.store import Store
from distforget.tracks import track
from distforget.training import Epoch

OBJECT_STORE_SHARE = 0.6
"""Share of Ray's object store that may be filled with weights."""


def run(plan: Plan, placement: Placement, listener: Listener) -> Summary:
    """Run all open steps, then write the study's tables.

    Raises:
        UsageError: store, data, model or memory are not fit for the study; nothing was computed.
    """
    store = open_store(placement.store)
    store.check_writable()
    store.sweep()
    runner = _Runner(plan, placement, store, listener)
    if not is_complete(plan, placement):
        with connected(placement):
            runner.prepare()
            runner.finetune_models()
            runner.ask_models()
            runner.run_cells()
            runner.attack_states()
            runner.score_states()
    tables = assemble(plan, store)
    store.sweep()
    done = store.done(step.key for step in plan.steps())
    rows = tables["cells"]["state"].to_pylist()
    after = [s for s in (*plan.attacks, *plan.probes) if s.inputs["state"].key in done]
    unanswered = tuple(s.title for s in (*plan.asks, *after) if s.key not in done)
    cells = sum(step.key in done for step in plan.cells)
    return Summary(tables, len(plan.cells), cells, len(rows) - cells, runner.computed, unanswered)


class _Runner:
    def __init__(self, plan: Plan, placement: Placement, store: Store, listener: Listener) -> None:
        self.plan, self.placement = plan, placement
        self.store, self.listener = store, listener
        self.computed = 0

    def _todo(self, steps: Sequence[Step]) -> list[Step]:
        return open_steps(steps, self.placement, self.store)

    def _unblocked(self, steps: Sequence[Step]) -> list[Step]:
        """The steps whose inputs are all there; to the others that is an attempt."""
        done = self.store.done({s.key for step in steps for s in step.inputs.values()})
        found = []
        for step in steps:
            missing = [s for s in step.inputs.values() if s.key not in done]
            if not missing:
                found.append(step)
                continue
            self.store.record_attempt(
                step,
                "blocked",
                error_class="InputMissing",
                error_message=f"not run: {missing[0].title} failed",
            )
        return found

    def prepare(self) -> None:
        """Dataset and base models; an error here ends the run before hours are spent."""
        steps = self._todo([self.plan.dataset, *self.plan.models])
        if steps:
            self.listener.stage("data and models", len(steps))
        for step in steps:
            with self._claim(step):
                if not self.store.is_done(step.key):
                    began = time.monotonic()
                    if step.stage == "dataset":
                        build_dataset(step, self.plan.study, self.store, told=self.listener.told)
                    else:
                        fetch_model(step, self.plan.study, self.store)
                    self._done(step, time.monotonic() - began)
        check_metrics(self.plan, self.store)
        check_nearest(self.plan, self.store)
        for text in doubts(self.plan, self.store):
            self.listener.doubt(text)
        self._check_memory()
        self._check_teams()

    def _done(self, step: Step, seconds: float) -> None:
        self.computed += 1
        self.listener.finished(step, Outcome(step.key, True, seconds))

    def _check_memory(self) -> None:
        share = self._share(len(self.plan.cells), len(self.plan.cells))
        if share.device != "cpu":
            return
        workers = max(share.workers, self.placement.train_workers * self._train_groups())
        for step in self.plan.models:
            check_memory(step.about["model"], self._bytes(step), workers, available_memory())

    def _train_groups(self) -> int:
        most = max(map(self._bytes, self.plan.models))
        return train_groups(self.placement, len(self.plan.finetunes), most)

    def _bytes(self, model: Step) -> int:
        return worker_bytes(model, self.plan.study, self.store)

    def _asking_bytes(self) -> int:
        """Memory that each worker of a cell's team takes for asking; 0 of small models."""
        sizes = (weight_bytes(step, self.plan.study, self.store) for step in self.plan.models)
        return max(sizes)

    def _check_teams(self) -> None:
        cells = len(self.plan.cells)
        share = self._share(cells, cells, asking=self._asking_bytes())
        if self.placement.workers_per_cell > 1 and share.per_cell == 1:
            raise UsageError("workers_per_cell: classifiers are small; leave it away")
        for choice in self.plan.study.methods:
            chooses = resolve(choice).method.trains is not None
            if chooses and share.per_cell > 1 and self.placement.stepper == "deepspeed":
                raise UsageError(
                    f"stepper: {choice.name} chooses weights by their whole gradients, which no "
                    f"worker of {share.per_cell} has with deepspeed; use torch, or leave it out"
                )

    def _share(self, planned: int, left: int, losses: int = 0, asking: int = 0) -> Share:
        """Resources of the workers; their number is halved after each round that lost some.

        Threads go by what is planned and not by what is left, since sums round differently with
        each number of them: a run that was cut short ends with the rows of one that was not.
        """
        most = max(map(self._bytes, self.plan.models))
        share = cell_share(self.placement, planned, most, asking)
        return replace(share, workers=max(1, min(share.workers, left) >> losses))

    def finetune_models(self) -> None:
        """Run all trainings; one that fails blocks only its own cells.

        Small models are trained side by side, others one after the other by a group of workers.
        """
        steps = self._todo(self.plan.finetunes)
        if not steps:
            return
        if track(self.plan.study.track).SMALL_MODELS:
            self._run_pool("training", self.plan.finetunes, steps)
            return
        self.listener.stage("fine-tuning", len(steps))
        with ExitStack() as claims:
            for step in sorted(steps, key=lambda step: step.key):
                claims.enter_context(self._claim(step))
            steps = [step for step in steps if not self.store.is_done(step.key)]
            if steps:
                groups = self._train_groups()
                finetune(
                    deal(steps, groups, self._cost),
                    self.plan.study,
                    self.placement,
                    self.store,
                    train_threads(self.placement, groups),
                    self._trained,
                )

    def _claim(self, step: Step) -> AbstractContextManager[bool]:
        return self.store.claim(step.key, lambda: self.listener.waiting(step))

    def _cost(self, step: Step) -> float:
        """Relative duration of a fine-tuning: weights times rows."""
        data, model = self.plan.study.data, step.inputs["model"]
        others = data.others if isinstance(data, TextData) else 0
        rows = data.targets * (1 + int(step.about["dose"])) + others
        return float(self._bytes(model) * rows)

    def _trained(self, step: Step, event: Epoch | Outcome) -> None:
        if isinstance(event, Outcome):
            self._note(step, event)
        else:
            self.listener.epoch(step, event, self.plan.study.finetune.max_epochs)

    def ask_models(self) -> None:
        """Ask floors and ceilings, and compute references, once for each model and dose."""
        planned = [*self.plan.asks, *self.plan.references]
        steps = self._unblocked(self._todo(planned))
        if steps:
            self._run_pool("floor, ceiling and reference", planned, steps)

    def attack_states(self) -> None:
        """Attack all states that have answered."""
        steps = self._todo(self.plan.attacks)
        if steps:
            self._run_pool("attacks", self.plan.attacks, steps)

    def score_states(self) -> None:
        """Run the probes of all states that have answered, attacked or not."""
        steps = self._todo(self.plan.probes)
        if steps:
            self._run_pool("scores", self.plan.probes, steps)

    def _run_pool(self, title: str, planned: Sequence[Step], steps: Sequence[Step]) -> None:
        """Run steps in parallel actors; steps of lost actors run again, each alone."""
        self.listener.stage(title, len(steps))
        by_key = {step.key: step for step in steps}
        small = track(self.plan.study.track).SMALL_MODELS
        most = len(by_start(planned, not small))
        attempt = 0
        while steps:
            together = not (attempt or small)
            groups = [
                (partial(self._state, group[0]), group) for group in by_start(steps, together)
            ]
            share = self._share(most, len(groups), attempt)
            lost, busy = [], []
            for outcome in run_groups(self.plan.study, self.store, groups, share):
                step = by_key[outcome.key]
                if outcome.kind == "disk":
                    raise DiskError(outcome.error)
                if outcome.kind == "lost":
                    lost.append(step)
                elif outcome.kind == "busy":
                    busy.append(step)
                else:
                    self._note(step, outcome)
            attempt += bool(lost)
            if attempt > self.placement.retries:
                for step in lost:
                    self._give_up(step)
                lost = []
            steps = lost + self._left_by_others(busy)

    def _left_by_others(self, steps: Sequence[Step]) -> list[Step]:
        """Wait until another run has ended its first step; return the steps that are still open."""
        for step in steps[:1]:
            with self._claim(step):
                pass
        left = self._todo(steps)
        open_keys = {step.key for step in left}
        for step in (step for step in steps if step.key not in open_keys):
            done = self.store.is_done(step.key)
            error = "" if done else self.store.attempts(step.key)[-1].error_message
            self._note(step, Outcome(step.key, done, 0.0, error, "others"))
        return left

    def _note(self, step: Step, outcome: Outcome) -> None:
        self.computed += outcome.done and outcome.kind == "own"
        self.listener.finished(step, outcome)

    def _give_up(self, step: Step) -> None:
        message = f"worker lost or out of memory, {self.placement.retries + 1} times"
        for known in self.store.attempts(step.key)[-1:]:
            message += f"; the last said {known.error_class}: {known.error_message}"
        self.store.record_attempt(step, "failed", error_class="WorkerLost", error_message=message)
        self.listener.finished(step, Outcome(step.key, False, 0.0, message))

    def _state(self, step: Step) -> State:
        if step.stage == "probe":
            return scored_state(step, self.store)
        answers = self.plan.before(step) if step.stage == "cell" else None
        state = tuned_state(step.state, self.store, answers)
        put = weights.put(state.weights) if isinstance(state.weights, Path) else None
        return replace(state, weights=put)

    def run_cells(self) -> None:
        """Run the grid. Each Tuner gets as many models and doses as fit into the object store."""
        steps = self._unblocked(self._todo(self.plan.cells))
        if not steps:
            return
        self.listener.stage("cells", len(steps))
        stopper = _FirstFailures(self.placement.stop_if_first_fail)
        tries = dict.fromkeys((step.key for step in steps), 0)
        by_key = {step.key: step for step in steps}
        seen: set[str] = set()
        busy: set[str] = set()
        unwritable: list[str] = []

        def on_outcome(outcome: Outcome) -> bool:
            if outcome.kind == "disk":
                unwritable.append(outcome.error)
                return False
            if outcome.kind == "busy":
                busy.add(outcome.key)
                return True
            if outcome.kind == "lost":
                return note_loss(outcome.key)
            seen.add(outcome.key)
            self._note(by_key[outcome.key], outcome)
            return stopper.note(outcome.done)

        def note_loss(key: str) -> bool:
            tries[key] += 1
            if tries[key] <= self.placement.retries:
                return True
            self._give_up(by_key[key])
            seen.add(key)
            return stopper.note(False)

        while steps and not stopper.stopped:
            busy.clear()
            for groups, losses in self._rounds(steps, tries):
                pairs = [(state, step) for state, group in groups for step in group]
                share = self._share(len(self.plan.cells), len(pairs), losses, self._asking_bytes())
                # Cells of a lost worker run alone, since one of them may be to blame.
                batched = self.plan.study.adapter and not losses
                together = self.placement.cells_per_batch if batched else 1
                lost = run_cells(
                    self.plan.study, self.store, pairs, share, together, on_outcome, self.placement
                )
                if unwritable:
                    raise DiskError(unwritable[0])
                for key in lost:
                    note_loss(key)
                if stopper.stopped:
                    return
            left_by_others = self._left_by_others([step for step in steps if step.key in busy])
            steps = [step for step in steps if step.key not in seen | busy] + left_by_others

    def _rounds(
        self, steps: Sequence[Step], tries: Mapping[str, int]
    ) -> Iterator[tuple[list[tuple[State, list[Step]]], int]]:
        """The groups of each Tuner, and how often their cells have lost a worker."""
        by_losses: dict[int, list[Step]] = {}
        for step in steps:
            by_losses.setdefault(tries[step.key], []).append(step)
        for losses, some in sorted(by_losses.items()):
            for groups in self._tuners(some):
                yield groups, losses

    def _tuners(self, steps: Sequence[Step]) -> Iterator[list[tuple[State, list[Step]]]]:
        """Groups of cells with the same start, bundled so that the weights of a Tuner fit."""
        room = object_store_bytes() * OBJECT_STORE_SHARE
        chosen: list[tuple[State, list[Step]]] = []
        count, size = 0, 0
        for whole in by_start(steps):
            tuned = whole[0].inputs.get("finetune")
            more = self.store.manifest(tuned.key)["files"][WEIGHTS] if tuned else 0
            for start in range(0, len(whole), self.placement.cells_per_tuner):
                group = whole[start : start + self.placement.cells_per_tuner]
                full = count + len(group) > self.placement.cells_per_tuner or size + more > room
                if chosen and full:
                    yield chosen
                    chosen, count, size = [], 0, 0
                chosen.append((self._state(group[0]), group))
                count, size = count + len(group), size + more
        if chosen:
            yield chosen


class _FirstFailures:
    """Stops the run if the first n cells all fail, since then all others would fail as well."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.failed = 0
        self.any_done = False

    @property
    def stopped(self) -> bool:
        return not self.any_done and self.failed >= self.first

    def note(self, done: bool) -> bool:
        """Note an outcome and return whether to go on."""
        self.any_done |= done
        self.failed += not done
        return not self.stopped
