"""Measures `distforget plan` of a paper-size study: 3,200 cells, with no store and one half done.

    python benchmarks/plan.py [--repeats 5] [--quick] [--output plan.json]

Times are those of whole processes, the median of a few. The baseline is a Python process that does
nothing but import torch and transformers, as any command of a peer does before it can say a word.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import yaml
from measuring import machine, mark_done, paper_plan, paper_study, parser, report


def seconds(command: Sequence[str], repeats: int) -> tuple[float, float]:
    """Median wall and CPU time of a command."""
    wall, cpu = [], []
    for _ in range(repeats):
        began, worked = time.perf_counter(), children_cpu()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - began)
        cpu.append(children_cpu() - worked)
    return median(wall), median(cpu)


def children_cpu() -> float:
    """CPU seconds of the processes that this one waited for."""
    used = os.times()
    return used.children_user + used.children_system


def main() -> None:
    """One line each."""
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=0)
    given = options.parse_args()
    repeats = given.repeats or (3 if given.quick else 7)
    about = machine(given.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "paper.yaml"
        study.write_text(yaml.safe_dump(paper_study()))
        plan = paper_plan()
        mark_done(folder / "half", plan, len(plan.cells) // 2)
        command = [sys.executable, "-c", "from distforget.cli import main; main()", "plan"]
        runs = {
            "import torch, transformers (baseline)": [
                sys.executable, "-c", "import torch, transformers; transformers.Trainer"],
            "distforget plan, empty store": [*command, str(study), "--store", f"{folder}/none"],
            "distforget plan, half done": [*command, str(study), "--store", f"{folder}/half"],
        }  # fmt: skip
        times = {what: seconds(run, repeats) for what, run in runs.items()}
    base, _ = next(iter(times.values()))
    rows = [
        {"what": what, "seconds": wall, "ratio": base / wall, "CPU seconds": cpu}
        for what, (wall, cpu) in times.items()
    ]
    report("planning 3,200 cells", rows, about, given.output)


if __name__ == "__main__":
    main()
