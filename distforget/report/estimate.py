"""Estimates time and memory of what a plan has left, from the store's results of the same kind."""

from __future__ import annotations

from collections.abc import Set
from statistics import median

from rich.console import Console

from distforget.engine.models import weight_bytes, worker_bytes
from distforget.plan import Plan, Step
from distforget.report.terminal import duration
from distforget.store import Store


def seconds_left(plan: Plan, store: Store, done: Set[str]) -> tuple[float, list[str]]:
    """Sum over steps left of the median time of the stage's results so far; and stages without any.

    Times come from this study's own finished steps (the machine and model are the same), one step
    after the other: divide by the number of workers.

    Args:
        done: keys of the plan's steps that are done.
    """
    total, unknown = 0.0, []
    groups: dict[str, list[Step]] = {}
    for step in plan.steps():
        groups.setdefault(step.stage, []).append(step)
    for stage, steps in groups.items():
        left = sum(step.key not in done for step in steps)
        if not left:
            continue
        manifests = [store.manifest(step.key) for step in steps if step.key in done]
        known = [float(m["seconds"]) for m in manifests if "seconds" in m]
        if known:
            total += median(known) * left
        else:
            unknown.append(stage)
    return total, unknown


def print_estimate(plan: Plan, store: Store, console: Console) -> None:
    """One line about time, one a model about memory and disk."""
    done = store.done(step.key for step in plan.steps())
    total, unknown = seconds_left(plan, store, done)
    if all(step.key in done for step in plan.steps()):
        console.print("time: nothing left to do")
    elif total or not unknown:
        missing = f" (not counted, none done yet: {', '.join(unknown)})" if unknown else ""
        console.print(f"time: about {duration(total)} of one worker left{missing}")
    else:
        console.print("time: unknown until a step of each stage is done; `status` tells as it goes")
    for step in plan.models:
        if step.key in done:
            size = weight_bytes(step, plan.study, store) / 2**30
            worker = worker_bytes(step, plan.study, store) / 2**30
            states = len(plan.finetunes) // len(plan.models)
            console.print(
                f"{step.about['model']}: {size:.2f} GiB of weights; "
                f"{worker:.1f} GiB of memory a training or cell worker; "
                f"{size * states:.1f} GiB of disk for {states} fine-tuned states"
            )
        else:
            console.print(f"{step.about['model']}: size unknown until the model is fetched")
