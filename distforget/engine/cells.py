"""Fans cells out with Ray Tune, which executes them and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from distforget.engine.cluster import Share
from distforget.engine.worker import Device, Outcome, State, Worker
from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study

WorkerArguments = tuple[Study, Store, Device]


class CellTrainable(tune.Trainable):
    """One reused actor; each trial is a cell, committed to the store before it is reported."""

    def setup(  # type: ignore[override] # with_parameters adds arguments
        self, config: dict[str, Any], worker: WorkerArguments, cells: Sequence[tuple[State, Step]]
    ) -> None:
        """Once an actor: nothing is loaded before the first cell asks for it."""
        self.worker = Worker(*worker)
        self.cells = cells
        self.number = config["cell"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another cell; the weights are restored at its start."""
        self.number = new_config["cell"]
        return True

    def step(self) -> dict[str, Any]:
        """Run the cell. An error is a row in the store and an outcome here, never an exception."""
        outcome = self.worker.run(*self.cells[self.number])
        return {"done": True, "outcome": vars(outcome)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: the store is the only truth."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was kept."""


class _Listener(tune.Callback):
    """Hands outcomes on, and stops the run when the first cells all fail."""

    def __init__(self, on_outcome: Callable[[Outcome], bool]) -> None:
        self.on_outcome = on_outcome
        self.go_on = True

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles itself for a restore that is not wanted here: the store is the truth."""
        return {"on_outcome": None, "go_on": True}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A cell has an outcome."""
        if "outcome" in result:
            self.go_on = self.on_outcome(Outcome(**result["outcome"])) and self.go_on


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
    on_outcome: Callable[[Outcome], bool],
) -> None:
    """Run cells in one Tuner (at most about 1,000), those of one state after another.

    A cell for which `on_outcome` was not called was lost with its worker.

    Args:
        on_outcome: called a cell; returns False to stop the run early.
    """
    listener = _Listener(on_outcome)
    trainable = tune.with_resources(
        tune.with_parameters(
            CellTrainable,
            worker=(study, store, Device(share.device, share.threads)),
            cells=list(cells),
        ),
        {"cpu": share.cpus, "gpu": share.gpus},
    )
    with store.scratch("tune") as scratch, store.explaining("Tune's own files"):
        tune.Tuner(
            trainable,
            param_space={"cell": tune.grid_search(list(range(len(cells))))},
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
