"""Prints what settings of each method do on the targets of settings.yaml: defaults come from it.

Run `distforget run benchmarks/settings.yaml` first, then
`python benchmarks/settings.py results GA_GDN learning_rate=1e-5,2e-5 steps=5`.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pyarrow.compute as pc
import torch
from safetensors.torch import load_file

from distforget import cell, selection
from distforget.engine.data import read_samples
from distforget.engine.models import model_folder
from distforget.methods import resolve
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import MethodChoice, load_study
from distforget.tracks import track
from distforget.tracks.base import RetainBatches
from distforget.training import restore


def main(store_folder: str, names: str, *settings: str) -> None:
    """Run each method with each combination of settings on each target."""
    plan = make_plan(load_study(str(Path(__file__).with_name("settings.yaml"))))
    study, store = plan.study, Store(Path(store_folder))
    samples = read_samples(plan.dataset, store)
    folder = model_folder(plan.models[0], store)
    learner = track(study.track).open_learner(folder, study, study.models[0], "cpu")
    tuned = plan.finetunes[0]
    start = load_file(store.folder(tuned.key) / "weights.safetensors")
    dose = tuned.about["dose"]
    rows = selection.retain_rows(samples, dose, 0, study)
    examples = learner.encode(rows)
    batches = selection.retain_batches(len(rows), study.unlearn.retain_batch_size)
    restore(learner.module, start)
    retain = RetainBatches(examples, batches, learner.reference(examples, batches))
    axes = [(part.split("=")[0], part.split("=")[1].split(",")) for part in settings]
    print("method settings target KM-target KM-similar KM-others answer", flush=True)
    for name in names.split(","):
        for values in itertools.product(*(choices for _, choices in axes)):
            chosen = dict(zip((axis for axis, _ in axes), map(float, values), strict=True))
            if "steps" in chosen:
                chosen["steps"] = int(chosen["steps"])
            method = resolve(MethodChoice(name=name, settings=tuple(chosen.items())))
            for target in range(1, study.unlearn_targets + 1):
                what = cell.Cell(study, method, target, dose, 0)
                tables, outcome = cell.run(
                    learner, start, samples, what, retain, {"track": "text", "dataset": "settings",
                    "model": "smollm2", "dose": dose, "seed": 0, "method": name,
                    "unlearned": target})  # fmt: skip
                scores = tables["scores"]
                scores = scores.filter(pc.equal(scores["metric"], study.verify.metric))
                means = [
                    pc.mean(scores.filter(pc.equal(scores["role"], role))["value"]).as_py()
                    for role in ("target", "similar", "other")
                ]
                answer = tables["answers"].filter(pc.equal(tables["answers"]["role"], "target"))[
                    "answer"
                ][0]
                print(
                    name, chosen, target, *(f"{m:.2f}" for m in means),
                    f"{outcome['unlearn_seconds']:.0f}+{outcome['ask_seconds']:.0f}s", answer,
                    flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(*sys.argv[1:])
