"""Measures what Ray costs a cell that does nothing, and the driver's memory by number of cells.

    python benchmarks/overhead.py [--quick] [--output overhead.json]

The cells are those of a paper-size study, marked as done in a store of their own: a worker that is
given such a cell returns at once. So all that is left is what `engine.cells.run_cells` costs. Each
number of cells runs in a driver process of its own. The baseline is Ray Tune as its guide shows it:
one trial a cell of a function that reports once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from measuring import machine, mark_done, paper_plan, parser, report
from ray import tune

from distforget.engine.cells import run_cells
from distforget.engine.cluster import cell_share, connected
from distforget.engine.states import Outcome, State
from distforget.placement import Placement
from distforget.store import Store


def resident() -> float:
    """Memory of this process in MiB."""
    return float(psutil.Process().memory_info().rss / 2**20)


def since(before: float, began: float, worked: float) -> dict[str, float]:
    """Seconds, the driver's own CPU seconds, and its memory, now and grown (MiB)."""
    return {
        "seconds": time.monotonic() - began,
        "driver CPU": time.process_time() - worked,
        "driver MiB": resident(),
        "grown MiB": resident() - before,
    }


def ours(cells: int, device: str) -> dict[str, float]:
    """Seconds and driver memory of a number of cells, as `distforget run` would fan them out."""
    plan = paper_plan()
    with tempfile.TemporaryDirectory() as folder:
        placement = Placement(store=folder, device=device)
        store = Store(Path(folder))
        mark_done(store.root, plan, cells)
        pairs = [
            (State(s.inputs["dataset"], s.inputs["model"], s.inputs["finetune"].key, None), s)
            for s in plan.cells[:cells]
        ]
        seen: Counter[str] = Counter()

        def on_outcome(outcome: Outcome) -> bool:
            seen[outcome.key] += outcome.done
            return True

        with connected(placement):
            share = cell_share(placement, cells, worker_bytes=1)
            before, began, worked = resident(), time.monotonic(), time.process_time()
            for start in range(0, cells, placement.cells_per_tuner):
                some = pairs[start : start + placement.cells_per_tuner]
                run_cells(plan.study, store, some, share, 1, on_outcome, placement)
            figures = since(before, began, worked)
        if len(seen) != cells or seen.total() != cells:
            raise SystemExit(f"{len(seen)} of {cells} cells seen, {seen.total()} times in all")
    return figures


def report_once(config: dict[str, int]) -> None:
    """The baseline's cell."""
    tune.report({"cell": config["cell"]})


def baseline(cells: int, device: str) -> dict[str, float]:
    """Seconds and driver memory of one function trial a cell."""
    with tempfile.TemporaryDirectory() as folder, connected(Placement(store=folder)):
        share = cell_share(Placement(device=device), cells, worker_bytes=1)
        before, began, worked = resident(), time.monotonic(), time.process_time()
        tune.Tuner(
            tune.with_resources(report_once, {"cpu": share.cpus, "gpu": share.gpus}),
            param_space={"cell": tune.grid_search(list(range(cells)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=share.workers),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        return since(before, began, worked)


def in_a_process(only: str, cells: int, device: str) -> dict[str, float]:
    """Measure in a driver of its own, so that no run inherits another's memory."""
    command = [sys.executable, __file__, "--only", only, "--cells", str(cells), "--device", device]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(lines.splitlines()[-1])
    return found


def row(what: str, cells: int, figures: dict[str, float], baseline: float) -> dict[str, object]:
    """A line of the table; baseline in seconds a cell."""
    each = figures["seconds"] / cells
    return {
        "what": what,
        "cells": cells,
        "ms a cell": 1000 * each,
        "ratio": baseline / each,
        "driver CPU ms a cell": 1000 * figures["driver CPU"] / cells,
        "driver MiB": round(figures["driver MiB"]),
        "grown MiB": round(figures["grown MiB"]),
    }


def main() -> None:
    """One line for each number of cells."""
    options = parser(__doc__)
    options.add_argument("--cells", default="", help="numbers of cells, with commas")
    options.add_argument("--baseline-cells", type=int, default=0)
    options.add_argument("--only", choices=("ours", "baseline"), help="one driver, as JSON")
    given = options.parse_args()
    cells = given.cells or ("400" if given.quick else "400,800,1600,3200")
    numbers = [int(number) for number in cells.split(",")]
    few = given.baseline_cells or (8 if given.quick else 24)
    if given.only:
        measure = ours if given.only == "ours" else baseline
        print(json.dumps(measure(numbers[0], given.device)))
        return
    about = machine(given.device)
    first = in_a_process("baseline", few, given.device)
    per_trial = first["seconds"] / few
    rows = [row("Tune, a function trial a cell (baseline)", few, first, per_trial)]
    for number in numbers:
        figures = in_a_process("ours", number, given.device)
        rows.append(row("distforget", number, figures, per_trial))
    report("Ray's overhead of a cell that does nothing", rows, about, given.output)


if __name__ == "__main__":
    main()
