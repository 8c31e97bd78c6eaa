"""Estimates the time and memory that a plan still needs, from finished steps of the same kind."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from statistics import median

from rich.console import Console

from distforget.analysis.intervals import FEWEST
from distforget.analysis.power import smallest_effect
from distforget.engine.models import weight_bytes, worker_bytes
from distforget.methods import reference
from distforget.plan import Plan, Step
from distforget.report.progress import duration
from distforget.store import Store

WORKERS = (1, 8, 64)
"""Workers side by side that time is told for: GPUs, or shares of them."""

TEAMS = (2, 4, 8)
"""Workers a cell that memory is told for."""

SPREAD = 0.2
"""Standard deviation over targets that the power is said for; about that of KM here."""


@dataclass(frozen=True)
class Left:
    """Open steps of one stage; stages run one after another."""

    stage: str
    steps: int
    seconds: float | None
    """Median of a finished step of the stage; None if none is finished."""

    def on(self, workers: int) -> float:
        """Seconds that so many workers need: no less than one step takes."""
        rounds = -(-self.steps // workers)
        return rounds * (self.seconds or 0.0)


def left(plan: Plan, store: Store, done: Set[str]) -> list[Left]:
    """What is open, by stage, with times of this study's own finished steps: of this machine.

    Args:
        done: keys of the plan's steps that are done.
    """
    found = []
    stages: dict[str, list[Step]] = {}
    for step in plan.steps():
        stages.setdefault(step.stage, []).append(step)
    for stage, steps in stages.items():
        open_steps = sum(step.key not in done for step in steps)
        if open_steps:
            manifests = [store.manifest(step.key) for step in steps if step.key in done]
            known = [float(m["seconds"]) for m in manifests if "seconds" in m]
            found.append(Left(stage, open_steps, median(known) if known else None))
    return found


def print_power(plan: Plan, console: Console) -> None:
    """Print the smallest difference that the study can decide, and what more targets would."""
    own = plan.study.unlearn_targets
    lines = {(c.about["model"], c.about["method"]) for c in plan.cells if _is_compared(c)}
    if own < FEWEST or not lines:
        console.print(
            f"power: no interval and no verdict with {own} targets; take {FEWEST} or more"
        )
        return
    said = [
        f"{smallest_effect(targets, len(lines)) * SPREAD:.2f} with {targets}"
        for targets in sorted({own, 8, 20, 50})
    ]
    console.print(
        f"power: differences decided in 80 % of studies, if those of targets spread by {SPREAD:g} "
        f"(standard deviation) and {len(lines)} verdicts are corrected together: "
        f"{', '.join(said)} targets"
    )


def _is_compared(cell: Step) -> bool:
    """Whether it is of a method's plain use, which the paper's claims are about."""
    return bool(cell.about["variant"] == "plain" and cell.about["method"] != reference())


def print_estimate(plan: Plan, store: Store, console: Console) -> None:
    """Print one line about time, and one line per model about memory and disk."""
    done = store.done(step.key for step in plan.steps())
    stages = left(plan, store, done)
    unknown = [stage.stage for stage in stages if stage.seconds is None]
    if not stages:
        console.print("time: nothing left to do")
    elif len(unknown) < len(stages):
        missing = f" (not counted, none done yet: {', '.join(unknown)})" if unknown else ""
        times = [duration(sum(stage.on(workers) for stage in stages)) for workers in WORKERS]
        more = ", ".join(f"{time} with {n}" for n, time in zip(WORKERS, times, strict=True))
        console.print(f"time left, by workers: about {more}{missing}")
    else:
        console.print("time: unknown until one step of each stage is done; `status` prints it then")
    for step in plan.models:
        if step.key in done:
            size = weight_bytes(step, plan.study, store) / 2**30
            worker = worker_bytes(step, plan.study, store) / 2**30
            shares = ", ".join(f"{size + worker / world:.1f}" for world in TEAMS)
            teams = f" ({shares} each if {', '.join(map(str, TEAMS))} share a cell by deepspeed)"
            states = len([tuned for tuned in plan.finetunes if tuned.inputs["model"] is step])
            console.print(
                f"{step.about['model']}: {size:.2f} GiB of weights; "
                f"{worker:.1f} GiB of memory a training or cell worker, without activations"
                f"{'' if plan.study.adapter else teams}; "
                f"{size * states:.1f} GiB of disk for {states} fine-tuned states"
            )
        else:
            console.print(f"{step.about['model']}: size unknown until the model is fetched")
