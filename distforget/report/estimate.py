"""Estimates time and memory of what a plan has left, from the store's results of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console

from distforget.engine.models import weight_bytes
from distforget.plan import TRAINING_COPIES, Plan, Step
from distforget.report.terminal import duration
from distforget.store import Store


def seconds_left(plan: Plan, store: Store) -> tuple[float, list[str]]:
    """Sum over steps left of the median time of the stage's results so far; and stages without any.

    Times come from this study's own finished steps (the machine and model are the same), one step
    after the other: divide by the number of workers.
    """
    total, unknown = 0.0, []
    groups: dict[str, list[Step]] = {}
    for step in plan.steps():
        groups.setdefault(step.stage, []).append(step)
    for stage, steps in groups.items():
        left = [step for step in steps if not store.is_done(step.key)]
        known = _times(steps, store)
        if left and not known:
            unknown.append(stage)
        elif left:
            total += median(known) * len(left)
    return total, unknown


def _times(steps: Sequence[Step], store: Store) -> list[float]:
    manifests = [store.manifest(step.key) for step in steps if store.is_done(step.key)]
    return [float(m["seconds"]) for m in manifests if "seconds" in m]


def print_estimate(plan: Plan, store: Store, console: Console) -> None:
    """One line about time, one a model about memory and disk."""
    total, unknown = seconds_left(plan, store)
    left = sum(not store.is_done(step.key) for step in plan.steps())
    if not left:
        console.print("time: nothing left to do")
    elif total or not unknown:
        missing = f" (not counted, none done yet: {', '.join(unknown)})" if unknown else ""
        console.print(f"time: about {duration(total)} of one worker left{missing}")
    else:
        console.print("time: unknown until a step of each stage is done; `status` tells as it goes")
    for step in plan.models:
        if store.is_done(step.key):
            size = weight_bytes(step, store) / 2**30
            states = len(plan.finetunes) // len(plan.models)
            console.print(
                f"{step.about['model']}: {size:.2f} GiB of weights; "
                f"{size * TRAINING_COPIES:.1f} GiB of memory a training or cell worker; "
                f"{size * states:.1f} GiB of disk for {states} fine-tuned states"
            )
        else:
            console.print(f"{step.about['model']}: size unknown until the model is fetched")
