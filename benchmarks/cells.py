"""Measures seconds a cell in the grid against the peers' way: a process a cell, one after another.

    python benchmarks/cells.py [--cells 50] [--adapter] [--model FOLDER] [--quick]

Ours is `distforget run` of a study with that many cells of GA_GDN, one target each. The baseline
(peer_cell.py) starts from the same fine-tuned weights (--adapter: LoRA, there in peft), takes as
many steps on the same batches with the same settings and asks the same questions; a few of its
cells are timed and their mean is taken. Its processes use all cores; ours share them among the
workers. The script ends with an error if losses, answers or scores of the two ways do not agree.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
from measuring import machine, parser, report
from safetensors.torch import load_file

from distforget import selection
from distforget.engine.data import read_samples
from distforget.engine.models import model_folder
from distforget.engine.run import run
from distforget.engine.states import Outcome
from distforget.methods import resolve
from distforget.placement import Placement
from distforget.plan import Plan, Step, make_plan
from distforget.steppers import restore
from distforget.store import Store
from distforget.study import Study
from distforget.tracks.text import open_learner
from distforget.tracks.text.models import load_model
from distforget.training import Epoch

SYSTEM = "Answer in one sentence."


def study(model: str, cells: int, adapter: bool) -> Study:
    """As many targets as cells, memorised in part, each unlearned with GA_GDN."""
    return Study.model_validate(
        {
            "name": "bench-cells",
            "data": {"targets": cells, "others": 8, "similar": {"per_target": 2}},
            "models": [{"name": "m", "base": model, "prompt": {"system": SYSTEM}}],
            "doses": [0],
            "methods": ["GA_GDN"],
            "unlearn_targets": cells,
            "finetune": {"max_epochs": 2, "learning_rate": 2e-3 if adapter else 2e-4},
            **({"adapter": {}} if adapter else {}),
            "unlearn": {"retain_batch_size": 2, "retain_batches": 4},
            "verify": {"max_new_tokens": 32, "similar": 2, "others": 4},
        }
    )


class Stages:
    """Times the stages of a run (implements `engine.run.Listener`)."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def stage(self, title: str, steps: int) -> None:
        """See `Listener`."""
        self.current = title
        self.began[title] = time.monotonic()

    def finished(self, step: Step, outcome: Outcome) -> None:
        """See `Listener`."""
        if not outcome.done:
            raise SystemExit(f"{step.title}: {outcome.error}")
        self.ended[self.current] = time.monotonic()

    def epoch(self, step: Step, epoch: Epoch, max_epochs: int) -> None:
        """See `Listener`."""

    def doubt(self, text: str) -> None:
        """Said nowhere."""

    def waiting(self, step: Step) -> None:
        """See `Listener`."""


def jobs(plan: Plan, store: Store, device: str, folder: Path) -> list[dict[str, Any]]:
    """What the baseline is told of each cell; writes the fine-tuned model as a folder."""
    asked_study, tuned = plan.study, plan.finetunes[0]
    source = model_folder(plan.models[0], store)
    samples = read_samples(plan.dataset, store)
    weights = load_file(store.folder(tuned.key) / "weights.safetensors")
    if asked_study.adapter:
        shutil.copytree(source, folder)
        learner = open_learner(source, asked_study, asked_study.models[0], "cpu")
        assert learner.slots is not None
        learner.slots.write(weights, folder / "adapter")
    else:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        model = load_model(source, asked_study.dtype, "cpu")
        restore(model, weights)
        model.save_pretrained(folder)
    pairs = ["question", "answer"]
    retain = selection.retain_rows(samples, tuned.about["dose"], 0, asked_study)
    batches = selection.retain_batches(len(retain), asked_study.unlearn.retain_batch_size)
    config = resolve(asked_study.methods[0]).config
    found = []
    for step in plan.cells:
        target = step.about["unlearned"]
        asked = selection.asked_rows(samples, range(target, target + 1), asked_study)
        found.append(
            {
                "unlearned": target,
                "model": str(folder),
                "adapter": str(folder / "adapter") if asked_study.adapter else "",
                "device": device,
                "system": SYSTEM,
                "target": selection.target_row(samples, target).select(pairs).to_pylist()[0],
                "retain": [retain.select(pairs).take(rows).to_pylist() for rows in batches],
                "asked": asked.select(["sample_id", *pairs]).to_pylist(),
                "max_new_tokens": asked_study.verify.max_new_tokens,
                **config.model_dump(include={"steps", "learning_rate", "gradient_clip"}),
            }
        )
    return found


def peer(job: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of a process that does one cell, and its result."""
    told, result = folder / "job.json", folder / "result.json"
    told.write_text(json.dumps(job))
    script = Path(__file__).with_name("peer_cell.py")
    environment = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    began = time.monotonic()
    command = [sys.executable, str(script), str(told), str(result)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.monotonic() - began, json.loads(result.read_text())


def agreement(
    job: dict[str, Any], peers: dict[str, Any], tables: dict[str, pd.DataFrame]
) -> tuple[float, int]:
    """Largest relative difference of first and last loss; answers that are the same.

    Equal answers must have equal scores.
    """
    mine = {
        name: frame[(frame["unlearned"] == job["unlearned"])].set_index("sample_id")
        for name, frame in tables.items()
        if name != "cells"
    }
    cell = tables["cells"].set_index("unlearned").loc[job["unlearned"]]
    losses = [(cell["first_loss"], peers["losses"][0]), (cell["last_loss"], peers["losses"][-1])]
    km = mine["scores"][mine["scores"]["metric"] == "rougeL_recall"]["value"]
    same = 0
    for row, text, score in zip(
        job["asked"], peers["answers"], peers["rougeL_recall"], strict=True
    ):
        if mine["answers"].loc[row["sample_id"], "answer"] == text:
            same += 1
            if abs(km[row["sample_id"]] - score) > 1e-9:
                raise SystemExit(f"scores of {text!r}: {km[row['sample_id']]} and {score}")
    return max(abs(a - b) / max(abs(b), 0.1) for a, b in losses), same


def main() -> None:
    """Ours, then some cells of the baseline."""
    options = parser(__doc__)
    options.add_argument("--cells", type=int, default=0, help="50; quick: 8")
    options.add_argument("--baseline-cells", type=int, default=0, help="5; quick: 2")
    options.add_argument("--model", default="builtin:smollm2", help="as in a study")
    options.add_argument("--adapter", action="store_true", help="LoRA cells, eight in a batch")
    given = options.parse_args()
    cells = given.cells or (8 if given.quick else 50)
    few = given.baseline_cells or (2 if given.quick else 5)
    about = machine(given.device)
    plan = make_plan(study(given.model, cells, given.adapter))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages, began = Stages(), time.monotonic()
        summary = run(plan, Placement(store=folder / "store", device=given.device), stages)
        whole = time.monotonic() - began
        stage = stages.ended["cells"] - stages.began["cells"]
        names = ("cells", "answers", "scores")
        tables = {name: summary.tables[name].to_pandas() for name in names}
        for name in names[1:]:
            tables[name] = tables[name][tables[name]["phase"] == "post_unlearn"]
        told = jobs(plan, Store(folder / "store"), given.device, folder / "model")[:few]
        peers = [peer(job, folder) for job in told]
    base = mean(seconds for seconds, _ in peers)
    compared = [agreement(j, result, tables) for j, (_, result) in zip(told, peers, strict=True)]
    worst = max(difference for difference, _ in compared)
    same, asked = sum(same for _, same in compared), sum(len(job["asked"]) for job in told)
    rows = [
        {"what": f"a process a cell (baseline, mean of {few})", "s a cell": base, "ratio": 1.0},
        {
            "what": "distforget, cells stage",
            "s a cell": stage / cells,
            "ratio": base * cells / stage,
        },
        {"what": "distforget, whole run", "s a cell": whole / cells, "ratio": base * cells / whole},
    ]
    about |= {"cells": cells, "loss differs by": f"{worst:.1e}", "answers equal": f"{same}/{asked}"}
    title = f"seconds a cell of GA_GDN, {'LoRA' if given.adapter else 'whole weights'}"
    report(title, rows, about, given.output)
    if worst > 0.01 or same < 0.9 * asked:
        raise SystemExit("the two ways do not do the same work")


if __name__ == "__main__":
    main()
