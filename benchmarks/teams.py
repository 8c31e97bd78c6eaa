"""Compares cells of two workers with cells of one: losses, answers, log-probabilities, seconds.

    python benchmarks/teams.py [--model builtin:smollm2] [--quick] [--output teams.json]

All start from the same fine-tuned weights: only cells and what follows them is run again, once for
each way to lay a cell out. Seconds are those of the cell stage of one run, with the start of its
processes. On a machine of two cores two workers have a core each, and one worker has both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import machine, parser, report

from distforget.loading import load_study, write_study
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study

LAYOUTS = {
    "one worker": [],
    "two, torch": ["--workers-per-cell", "2"],
    **{
        f"two, ZeRO {stage}": [
            "--workers-per-cell", "2", "--stepper", "deepspeed", "--zero-stage", stage
        ]
        for stage in "123"
    },
}  # fmt: skip


def study(model: str, targets: int, adapter: bool) -> Study:
    """Four methods on one state: a regulariser of each kind, a last operation, noise."""
    rate = {"learning_rate": 3e-4 if adapter else 2e-5}
    methods: list[Any] = [{"name": n, "settings": rate} for n in ("GA_GDN", "NPO_KLN", "TV")]
    noisy = {"gamma": 0.1, "paraphrases": 0}
    methods.append({"name": "GA_GDN", "settings": rate, "enhanced": noisy})
    about = {
        "name": "teams-lora" if adapter else "teams",
        "data": {"targets": 2, "others": 4, "similar": {"per_target": 2}},
        "models": [{"name": "m", "base": model, "prompt": {"system": "Answer in one sentence."}}],
        "doses": ["all"],
        "methods": methods,
        "unlearn_targets": targets,
        "finetune": {"max_epochs": 6, "learning_rate": 1e-3 if adapter else 1e-4, "batch_size": 4},
        "unlearn": {"retain_batch_size": 2, "retain_batches": 2},
        "verify": {"max_new_tokens": 30, "similar": 2, "others": 2},
        "probes": ["rouge"],
    }
    return Study.model_validate({**about, "adapter": {"rank": 8}} if adapter else about)


def ran(path: Path, store: Path, options: list[str]) -> float:
    """Seconds of a run."""
    command = [sys.executable, "-c", "from distforget.cli import main; main()", "run", str(path)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--store", str(store), *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began


def without_cells(path: Path, whole: Path, to: Path) -> Path:
    """A copy of a store in which no cell is done."""
    shutil.copytree(whole, to)
    plan = make_plan(load_study(str(path)))
    for step in (*plan.cells, *(s for s in plan.probes if s.inputs["state"].stage == "cell")):
        shutil.rmtree(Store(to).folder(step.key))
    return to


def tables(store: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and their answers, in an order of their own."""
    folder = store / "studies" / name
    cells = pd.read_parquet(folder / "cells.parquet").sort_values("cell")
    answers = pd.read_parquet(folder / "answers.parquet")
    answers = answers[answers["phase"] == "post_unlearn"]
    by = ["phase", "method", "variant", "unlearned", "sample_id"]
    return cells, answers.sort_values(by, na_position="first")


def main() -> None:
    """One line for each way to lay out cells, of whole weights and of adapters."""
    options = parser(__doc__)
    options.add_argument(
        "--model", default="builtin:smollm2", help="folder, hub id or builtin:NAME"
    )
    given = options.parse_args()
    about, rows = machine(given.device), []
    with tempfile.TemporaryDirectory() as folder:
        for adapter in (False, True):
            asked = study(given.model, 1 if given.quick else 2, adapter)
            path, whole = Path(folder) / f"{asked.name}.yaml", Path(folder) / asked.name
            write_study(asked, path)
            ran(path, whole, [])
            expected_cells, expected = tables(whole, asked.name)
            for layout, arguments in LAYOUTS.items():
                if adapter and "ZeRO" in layout:
                    continue
                store = without_cells(path, whole, Path(folder) / f"{asked.name} {layout}")
                seconds = ran(path, store, arguments)
                cells, answers = tables(store, asked.name)
                logprobs = [
                    np.abs(mine - one).max()
                    for mine, one in zip(
                        answers["expected_logprobs"], expected["expected_logprobs"], strict=True
                    )
                ]
                loss = np.abs(cells["last_loss"].values / expected_cells["last_loss"].values - 1)
                equal = (answers["answer"].values == expected["answer"].values).sum()
                rows.append(
                    {
                        "weights": "LoRA" if adapter else "whole",
                        "layout": layout,
                        "loss, largest relative difference": float(loss.max()),
                        "log p of a token, largest difference": float(max(logprobs)),
                        "answers equal": f"{equal} of {len(answers)}",
                        "seconds": seconds,
                    }
                )
    report("cells of two workers against cells of one", rows, about, given.output)


if __name__ == "__main__":
    main()
