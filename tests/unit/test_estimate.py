"""The time that a plan still needs, from the steps that are done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distforget.plan import make_plan
from distforget.report.estimate import Left, left
from distforget.store import Store
from distforget.study import Study
from tests.conftest import study_content


def test_workers_share_a_stage_and_wait_for_its_end() -> None:
    stage = Left("cell", 10, 3.0)
    assert [stage.on(workers) for workers in (1, 4, 8, 64)] == [30, 9, 6, 3]


def test_times_are_those_of_finished_steps_of_the_stage(tiny_model: Path, tmp_path: Path) -> None:
    plan, store = make_plan(Study.model_validate(study_content(tiny_model))), Store(tmp_path)
    for step, seconds in zip(plan.cells[:3], (2.0, 4.0, 100.0), strict=True):
        folder = tmp_path / "done" / step.key
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"seconds": seconds}))
    found = {stage.stage: stage for stage in left(plan, store, {s.key for s in plan.cells[:3]})}
    assert found["cell"] == Left("cell", len(plan.cells) - 3, 4.0)
    assert found["finetune"].seconds is None
    assert found["finetune"].on(1) == pytest.approx(0)
    assert left(plan, store, {step.key for step in plan.steps()}) == []
