"""What workers start from, where they compute, and what became of a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray

from distforget.plan import Step
from distforget.store import Store

ADAPTER = "adapter"
"""Folder that holds a cell's adapter, next to its tables."""


WEIGHTS = "weights.safetensors"
"""File with the weights of a fine-tuning, or of a cell if its model is small."""


@dataclass(frozen=True)
class Outcome:
    """The result of running a step: done, or failed with an attempt in the store."""

    key: str
    done: bool
    seconds: float
    error: str = ""
    kind: Literal["own", "others", "lost", "busy", "disk"] = "own"
    """Who brought it about: this run; another one. Else why it is neither: out of memory or
    worker lost; another run is at work on it; the store cannot be written."""


@dataclass(frozen=True)
class Device:
    """Where a worker computes."""

    name: str
    threads: int
    cells: int = 1
    """Number of cells that share a batch."""


@dataclass(frozen=True)
class State:
    """The weights that steps start from: a base model or a fine-tuned one."""

    dataset: Step
    model: Step
    key: str
    """Key of the step that made the weights."""
    weights: ray.ObjectRef[Any] | Path | None
    """Fine-tuned weights in the object store or in a file; None: the base model's own."""
    answers: Step | None = None
    """Earlier answers to the same questions, which serve as drafts if they are there."""


def tuned_state(step: Step, store: Store, answers: Step | None = None) -> State:
    """What a step on a fine-tuned model starts from: read from the store, or the model as given.

    Args:
        answers: see `State`.
    """
    dataset, model, tuned = (
        step.inputs["dataset"],
        step.inputs["model"],
        step.inputs.get("finetune"),
    )
    if tuned is None:
        return State(dataset, model, model.key, None, answers)
    return State(dataset, model, tuned.key, store.folder(tuned.key) / WEIGHTS, answers)


def scored_state(step: Step, store: Store) -> State:
    """The weights that a probe step starts from, if its state kept any."""
    state, inputs = step.inputs["state"], step.state.inputs
    made = [state, *(s for name, s in inputs.items() if name == "finetune")]
    kept = (store.folder(step.key) / WEIGHTS for step in made)
    path = next((path for path in kept if path.is_file()), None)
    return State(inputs["dataset"], inputs["model"], state.key, path)
