"""Shows how a study spreads over eight GPUs, on a machine without one.

    python benchmarks/gpu/eight.py [--output eight.json]

Ray is told of eight GPUs and sixteen cores; each worker holds one of the GPUs, as in a real run,
and computes a tiny model on the CPU. Counted is how many workers were at work at once, from the
times in the manifests, not how fast they were: all of them share this machine's cores.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from measuring import machine, parser, report

from distforget.engine.cluster import Share
from distforget.engine.run import run
from distforget.loading import load_study
from distforget.placement import Placement
from distforget.plan import Plan, Step, make_plan
from distforget.report.progress import Progress
from distforget.store import Store
from tests.conftest import make_tiny_model, study_content, write_study

GPUS = 8


def simulated(per_cell: int) -> Any:
    """What the cluster module would find on eight GPUs, with the CPU as their device."""

    def share(placement: Placement, steps: int, worker_bytes: int, asking_bytes: int) -> Share:
        workers = per_cell if asking_bytes else 1
        return Share("cpu", 1, 1, 1, max(1, min(GPUS // workers, steps)), workers)

    return share


def at_once(steps: Sequence[Step], store: Store) -> tuple[int, float, float]:
    """The most steps under way together, their mean number, and seconds from first to last."""
    spans = []
    for step in steps:
        facts = store.manifest(step.key)
        spans.append((facts["time"] - facts["seconds"], facts["time"]))
    events = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return most, sum(end - start for start, end in spans) / wall, wall


def studied(plan: Plan, folder: Path, per_cell: int) -> list[dict[str, Any]]:
    """One row a stage."""
    ray.init(
        "local", num_cpus=2 * GPUS, num_gpus=GPUS, include_dashboard=False,
        _node_ip_address="127.0.0.1", log_to_driver=False,
    )  # fmt: skip
    try:
        place = str(folder / f"store{per_cell}")
        placement = Placement(store=place, workers_per_cell=per_cell, device="cpu")
        with Progress(Console()) as progress:
            run(plan, placement, progress)
    finally:
        ray.shutdown()
    store = Store(folder / f"store{per_cell}")
    stages = {"floor, ceiling, reference": [*plan.asks, *plan.references], "cells": plan.cells}
    rows = []
    for stage, steps in stages.items():
        most, mean, wall = at_once(steps, store)
        rows.append(
            {
                "workers a cell": per_cell, "stage": stage, "steps": len(steps),
                "most at once": most, "mean at once": mean, "seconds": wall,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Cells of one worker each, then of two."""
    given = parser(__doc__).parse_args()
    about, rows = machine("cpu"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_tiny_model(folder / "model")
        content = study_content(model, methods=["GA_GDN", "GA_KLN", "NPO_GDN", "TV"])
        content["data"]["targets"] = content["unlearn_targets"] = 8
        plan = make_plan(load_study(str(write_study(folder / "tiny.yaml", content))))
        for per_cell in (1, 2):
            with patch("distforget.engine.run.cell_share", simulated(per_cell)):
                rows += studied(plan, folder, per_cell)
    report("a study on eight GPUs that are none", rows, about, given.output)


if __name__ == "__main__":
    main()
