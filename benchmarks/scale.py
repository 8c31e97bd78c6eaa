"""Measures what a finished study of many cells costs: plan, tables, status, page.

    python benchmarks/scale.py [--cells 1000 10000] [--quick] [--output scale.json]

The store is real, one folder a step, with made-up answers and scores; to write it takes a while.
Each command runs in a process of its own. "tables" is the end of a run, which reads every folder
the first time and keeps what it read in one file for each few hundred steps; "again" is the next.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import PAPER_METHODS, machine, parser, report

from distforget import schemas
from distforget.draws import rng
from distforget.engine.rows import cell_identity, identity
from distforget.loading import load_study, write_study
from distforget.plan import Plan, Step, cell_name, make_plan
from distforget.store import Store
from distforget.study import Study

ASKED = 6
"""Rows a cell is asked: its target, two similar samples, three others."""


def study(cells: int) -> Study:
    """As many cells as asked for: 50 targets, 8 methods, 2 doses, and seeds."""
    seeds = max(1, cells // (50 * len(PAPER_METHODS) * 2))
    return Study.model_validate(
        {
            "name": "made-up-scale",
            "data": {"targets": 50, "others": 50, "similar": {"per_target": 2}},
            "models": [{"name": "m", "base": "org/model"}],
            "doses": [0, "all"],
            "methods": list(PAPER_METHODS),
            "unlearn_targets": 50,
            "seeds": seeds,
            "verify": {"similar": 2, "others": 3},
            "probes": ["rouge"],
        }
    )


def fill(plan: Plan, store: Store) -> None:
    """Every step done, with the tables that it leaves."""
    for step in plan.steps():
        folder = store.root / "done" / step.key
        folder.mkdir(parents=True)
        for name, rows in tables(step, plan.study).items():
            pq.write_table(schemas.from_rows(name, rows), folder / f"{name}.parquet")
        (folder / "payload.json").write_text(step.payload)
        about = {"stage": step.stage, "title": step.title, "seconds": 2.0, "files": {}}
        (folder / "manifest.json").write_text(json.dumps(about))
        if step.stage == "dataset":
            (folder / "samples").mkdir()
            pq.write_table(samples(plan), folder / "samples/0.parquet")
        if step.stage == "model":
            (folder / "model.json").write_text(json.dumps({"folder": "", "weights": 10**9}))


def samples(plan: Plan) -> pa.Table:
    """The rows of the dataset."""
    from made_up import samples as made_up

    return made_up(plan)


def tables(step: Step, study: Study) -> dict[str, list[dict[str, Any]]]:
    """Made-up tables of a step."""
    if step.stage in ("ask", "cell"):
        whose = {**identity(step, study), "role": "target", "target_index": 1}
        rows = [
            {**whose, "sample_id": i, "answer": "He was born in Borkara.", "answer_tokens": 8}
            for i in range(ASKED)
        ]
        found = {"answers": rows}
        if step.stage == "cell":
            found["cells"] = [
                {
                    **cell_identity(step, study), "cell": cell_name(step), "key": step.key,
                    "state": "done", "attempts": 0, "diverged": False, "steps": 5,
                }
            ]  # fmt: skip
        return found
    if step.stage == "probe":
        whose = {**identity(step, study), "role": "target", "target_index": 1}
        values = np.clip(rng(0, step.key).normal(0.5, 0.2, ASKED), 0, 1)
        return {
            "scores": [
                {**whose, "sample_id": i, "metric": metric, "value": float(value)}
                for metric in study.metrics
                for i, value in enumerate(values)
            ]
        }
    return {"training": []} if step.stage == "finetune" else {}


COMMANDS = {
    "plan": "make_plan(load_study(path))",
    "status": "gather(make_plan(load_study(path)), store)",
    "tables": "assemble(make_plan(load_study(path)), store)",
    "tables, again": "assemble(make_plan(load_study(path)), store)",
    "page": "write_report(make_plan(load_study(path)), store, brief=True)",
    "pandas, scores": "pandas.read_parquet(store.study_table('made-up-scale', 'scores'))",
}


def inner(what: str, path: str, root: str) -> None:
    """Do one thing and print its seconds and the process's most memory."""
    import pandas

    from distforget.engine.assemble import assemble, gather
    from distforget.report.page import write_report

    known = {
        "assemble": assemble, "gather": gather, "write_report": write_report, "pandas": pandas,
        "make_plan": make_plan, "load_study": load_study, "store": Store(Path(root)), "path": path,
    }  # fmt: skip
    began = time.perf_counter()
    eval(COMMANDS[what], known)  # one of the lines above
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": time.perf_counter() - began, "GiB": peak}))


def measured(cells: int) -> list[dict[str, Any]]:
    """One row for each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, store = folder / "study.yaml", Store(folder / "store")
        write_study(study(cells), path)
        plan = make_plan(load_study(str(path)))
        fill(plan, store)
        rows = []
        for what in COMMANDS:
            command = [sys.executable, __file__, "--inner", what, str(path), str(store.root)]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            figures = json.loads(found.stdout.splitlines()[-1])
            rows.append({"cells": len(plan.cells), "what": what, **figures})
        files = sum(1 for _ in store.root.rglob("*"))
        rows.append(
            {"cells": len(plan.cells), "what": "files and folders", "seconds": files, "GiB": 0.0}
        )
    return rows


def main() -> None:
    """One line for each number of cells and command."""
    options = parser(__doc__)
    options.add_argument("--cells", type=int, nargs="+", default=[])
    options.add_argument("--inner", nargs=3, help="what, study and store: used by this script")
    given = options.parse_args()
    if given.inner:
        inner(*given.inner)
        return
    about = machine(given.device)
    rows = [
        row for n in given.cells or ([800] if given.quick else [800, 8000]) for row in measured(n)
    ]
    report("a finished study of many cells", rows, about, given.output)


if __name__ == "__main__":
    main()
