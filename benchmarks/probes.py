"""Measures what scoring finished cells costs: the probes of a paper-size study, as steps of a run.

    python benchmarks/probes.py [--quick] [--cells N] [--output probes.json]

A store is filled with cells that answered 71 samples each, with some words left out. Each probe of
each cell is a step: an actor reads the answers, scores them, and commits a table. The baseline
scores the same answers in one process, without Ray, store or files.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from measuring import machine, paper_study, parser, report

from distforget import cell, schemas, selection
from distforget.draws import rng
from distforget.engine.cluster import cell_share, connected
from distforget.engine.data import build_dataset, read_samples
from distforget.engine.groups import by_start
from distforget.engine.pools import run_groups
from distforget.engine.rows import identity
from distforget.engine.states import State
from distforget.placement import Placement
from distforget.plan import Plan, Step, make_plan
from distforget.store import Store
from distforget.study import Study
from distforget.tracks.text import stored_evidence


def answered(step: Step, asked: pa.Table, study: Study) -> pa.Table:
    """Answers of a cell: true ones less some words."""
    draw = rng(0, step.key)
    said = []
    for true in asked["answer"].to_pylist():
        words = true.split()
        said.append(" ".join(word for word in words if draw.random() < 0.7))
    whose = cell.rows_about(asked, range(len(asked)), identity(step, study))
    rows = [
        {**row, "answer": text, "answer_tokens": len(text.split()),
         "expected_logprobs": draw.normal(-1, 0.3, 12).tolist()}
        for row, text in zip(whose, said, strict=True)
    ]  # fmt: skip
    return schemas.from_rows("answers", rows)


def fill(plan: Plan, store: Store, cells: int) -> dict[str, pa.Table]:
    """Commit the dataset and so many cells; their answers by key."""
    build_dataset(plan.dataset, plan.study, store)
    samples = read_samples(plan.dataset, store)
    found = {}
    for step in plan.cells[:cells]:
        target = step.about["unlearned"]
        asked = selection.asked_rows(samples, range(target, target + 1), plan.study)
        table = answered(step, asked, plan.study)
        found[step.key] = table

        def write(folder: Path, table: pa.Table = table) -> None:
            schemas.write(table, "answers", folder / "answers.parquet")

        store.commit(step, write)
    return found


def in_one_process(plan: Plan, store: Store, answers: Mapping[str, pa.Table]) -> float:
    """Seconds of scoring alone."""
    samples = read_samples(plan.dataset, store)
    began = time.monotonic()
    for table in answers.values():
        evidence = stored_evidence(samples.take(table["sample_id"]), table, samples)
        for config in plan.study.probes:
            cell.scores(evidence, config, identity(plan.cells[0], plan.study))
    return time.monotonic() - began


def state_of(step: Step) -> State:
    """What its actor starts from: answers that were kept need no weights."""
    inputs = step.state.inputs
    return State(inputs["dataset"], inputs["model"], step.state.key, None)


def as_steps(plan: Plan, store: Store, steps: list[Step], placement: Placement) -> float:
    """Seconds of the steps, as `engine.run` would have them done, once the actors are there."""
    share = cell_share(placement, len(steps), worker_bytes=1)
    groups = [(partial(state_of, some[0]), some) for some in by_start(steps)]
    began = 0.0
    for outcome in run_groups(plan.study, store, groups, share):
        began = began or time.monotonic()
        if not outcome.done:
            raise SystemExit(outcome.error)
    return time.monotonic() - began


def main() -> None:
    """One line for the baseline and one for the steps."""
    options = parser(__doc__)
    options.add_argument("--cells", type=int, default=0)
    given = options.parse_args()
    cells = given.cells or (40 if given.quick else 400)
    content: dict[str, Any] = paper_study()
    plan = make_plan(Study.model_validate(content))
    about = machine("cpu")
    with tempfile.TemporaryDirectory() as folder, connected(Placement(store=folder)):
        store = Store(Path(folder))
        answers = fill(plan, store, cells)
        steps = [step for step in plan.probes if step.inputs["state"].key in answers]
        alone = in_one_process(plan, store, answers) / len(steps)
        each = as_steps(plan, store, steps, Placement(store=folder)) / len(steps)
    rows = [
        {"what": "in one process, in memory (baseline)", "steps": len(steps), "ms a step":
         1000 * alone, "baseline by this": 1.0},
        {"what": "distforget, steps in actors", "steps": len(steps), "ms a step": 1000 * each,
         "baseline by this": alone / each},
    ]  # fmt: skip
    report("Scoring what cells answered", rows, about, given.output)


if __name__ == "__main__":
    main()
