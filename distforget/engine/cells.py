"""Runs cells with Ray Tune, which only executes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from distforget.engine.cluster import Share
from distforget.engine.crew import Crew, make_team
from distforget.engine.states import Device, Outcome, State
from distforget.engine.worker import Worker
from distforget.placement import Placement
from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study

CELLS_PER_TRIAL = 32
"""Upper limit. A trial costs Tune about 30 ms and memory that it keeps; a result costs 2 ms."""


class CellTrainable(tune.Trainable):
    """An actor that Tune reuses. A trial runs several cells; each is committed and reported."""

    def setup(  # type: ignore[override] # with_parameters adds arguments
        self,
        config: dict[str, Any],
        worker: tuple[Study, Store, Device],
        placement: Placement,
        share: Share,
        cells: Sequence[tuple[State, Step]],
    ) -> None:
        """Prepare the actor; models are loaded when the first cell needs one."""
        self.worker = Worker(*worker)
        self.cells = cells
        if share.per_cell > 1:
            crew = Crew(_Helper, worker, share)
            bf16 = worker[0].dtype == "bfloat16"
            team = (share.per_cell, crew.meeting, share.device, placement, bf16)
            self.worker.team = crew.all(lambda: make_team(0, *team), "join", *team)[0]
            self.worker.crew = crew
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the cells of the next trial; each cell restores the weights at its start."""
        self.next, self.end = new_config["cells"]
        return True

    def step(self) -> dict[str, Any]:
        """Run the next cells. Errors are recorded in the store and reported, never raised."""
        state, steps = self._together()
        outcomes = self.worker.run_together(state, steps)
        self.next += len(steps)
        return {"done": self.next == self.end, "outcomes": [vars(outcome) for outcome in outcomes]}

    def _together(self) -> tuple[State, list[Step]]:
        """The next cell and the following ones that can share its batch."""
        state, first = self.cells[self.next]
        steps = [first]
        for other, step in self.cells[self.next + 1 : self.end]:
            full = len(steps) >= self.worker.device.cells
            if full or other.key != state.key or not self.worker.takes_steps(step):
                break
            steps.append(step)
        return state, steps

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: the store is the only truth."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""


class _Helper(Worker):
    """A worker of a team, of any rank but 0."""

    def __init__(self, study: Study, store: Store, device: Device, rank: int) -> None:
        super().__init__(study, store, device)
        self.rank = rank

    def join(self, *team: Any) -> None:
        """Join the team; takes what `make_team` takes after the rank."""
        self.team = make_team(self.rank, *team)


class _Listener(tune.Callback):
    """Passes outcomes on, and stops the run if the first cells all fail."""

    def __init__(self, on_outcome: Callable[[Outcome], bool]) -> None:
        self.on_outcome = on_outcome
        self.go_on = True

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks in order to restore runs; here the store does that."""
        return {"on_outcome": None, "go_on": True}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A cell has an outcome."""
        for outcome in result.get("outcomes", ()):
            self.go_on = self.on_outcome(Outcome(**outcome)) and self.go_on


class _Stopper(tune.Stopper):
    def __init__(self, listener: _Listener) -> None:
        self.listener = listener

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return not self.listener.go_on


def run_cells(
    study: Study,
    store: Store,
    cells: Sequence[tuple[State, Step]],
    share: Share,
    together: int,
    on_outcome: Callable[[Outcome], bool],
    placement: Placement,
) -> list[str]:
    """Run cells in one Tuner; cells that start from the same weights run one after another.

    Args:
        together: cells that share a batch.
        on_outcome: called a cell; returns False to stop the run early.

    Returns:
        Keys of the cells at which a worker was lost: one, or those that shared its batch. Others
        without a call of `on_outcome` were not begun: they stood behind such a cell in its trial,
        or the run was stopped.
    """
    seen: set[str] = set()

    def note(outcome: Outcome) -> bool:
        seen.add(outcome.key)
        return on_outcome(outcome)

    listener = _Listener(note)
    keys = [step.key for _, step in cells]
    trials = shares(len(cells), share.workers, together)
    trainable = tune.with_resources(
        tune.with_parameters(
            CellTrainable,
            worker=(study, store, Device(share.device, share.threads, together)),
            placement=placement,
            share=share,
            cells=list(cells),
        ),
        tune.PlacementGroupFactory([{"CPU": share.cpus, "GPU": share.gpus}] * share.per_cell),
    )
    with store.scratch("tune") as scratch, store.explaining("Tune's own files"):
        tune.Tuner(
            trainable,
            param_space={"cells": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=share.workers,
            ),
            run_config=tune.RunConfig(
                name="cells",
                storage_path=str(scratch.resolve()),
                verbose=0,
                callbacks=[listener],
                stop=_Stopper(listener),
                failure_config=tune.FailureConfig(max_failures=0, fail_fast=False),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),
            ),
        ).fit()
    if not listener.go_on:
        return []
    # One may have been done, but its worker lost before it was reported.
    left = [[key for key in keys[first:end] if key not in seen] for first, end in trials]
    begun = ([key for key in some if not store.is_done(key)][:together] for some in left)
    return [key for some in begun for key in some]


def shares(cells: int, workers: int, together: int = 1) -> list[tuple[int, int]]:
    """Bounds of each trial. Trials get shorter towards the end so that all workers end together.

    A trial has no fewer than share a batch, if there are enough for all workers.
    """
    found = []
    start = 0
    least = min(together, -(-cells // workers))
    while start < cells:
        size = max(least, min(CELLS_PER_TRIAL, (cells - start) // (4 * workers)))
        end = min(start + size, cells)
        found.append((start, end))
        start = end
    return found
