"""Cells shared out over trials: each once, and one that kills its worker is lost alone."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from distforget.engine.cells import CELLS_PER_TRIAL, run_cells, shares
from distforget.engine.cluster import Share, connected
from distforget.engine.pools import run_groups
from distforget.engine.states import Device, Outcome, State
from distforget.engine.worker import Worker
from distforget.placement import Placement
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study
from tests.conftest import study_content


@pytest.mark.parametrize("cells", [1, 8, 50, 3200])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_trials_hold_each_cell_once_and_end_together(cells: int, workers: int) -> None:
    trials = shares(cells, workers)
    assert [cell for first, end in trials for cell in range(first, end)] == list(range(cells))
    sizes = [end - first for first, end in trials]
    assert sizes == sorted(sizes, reverse=True)
    assert 1 <= sizes[0] <= CELLS_PER_TRIAL
    # No trial keeps one worker busy for more than a quarter of what is left for all of them.
    assert all(
        size == 1 or size * 4 * workers <= cells - first
        for size, (first, _) in zip(sizes, trials, strict=True)
    )


@dataclass(frozen=True)
class DeadlyStore(Store):
    """All cells are done, but a worker that looks at one of them dies."""

    deadly: str
    driver: int

    def is_done(self, key: str) -> bool:
        if key == self.deadly and os.getpid() != self.driver:
            os._exit(1)
        return key != self.deadly


def test_those_behind_a_cell_that_kills_its_worker_are_not_blamed(
    tiny_model: Path, tmp_path: Path
) -> None:
    content = study_content(tiny_model, unlearn_targets=3)
    plan = make_plan(Study.model_validate(content))
    cells = [
        (State(s.inputs["dataset"], s.inputs["model"], s.inputs["finetune"].key, None), s)
        for s in plan.cells
    ]
    keys = [step.key for step in plan.cells]
    assert shares(len(keys), 1)[0] == (0, 3)
    store = DeadlyStore(tmp_path, keys[1], os.getpid())
    seen: list[str] = []

    def on_outcome(outcome: Outcome) -> bool:
        seen.append(outcome.key)
        return True

    with connected(Placement(store=tmp_path, cpus=1)):
        share = Share("cpu", 1, 0, 1, 1)
        lost = run_cells(plan.study, store, cells, share, 1, on_outcome, Placement())
        # Far more actors than there is room for: those that there is room for do it all.
        groups = [(partial(replace, state), [step]) for state, step in cells]
        outcomes = list(run_groups(plan.study, store, groups, replace(share, workers=8)))
    assert lost == [keys[1]]
    assert sorted(seen) == sorted([keys[0], *keys[3:]])
    kinds = {outcome.key: outcome.kind for outcome in outcomes}
    assert kinds == {key: "lost" if key == keys[1] else "others" for key in keys}


class SpoiltStore(Store):
    """Where results are read, the GPU reports an error."""

    def folder(self, key: str) -> Path:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def test_a_worker_whose_gpu_has_failed_ends(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = make_plan(Study.model_validate(study_content(tiny_model))), SpoiltStore(tmp_path)
    step = plan.cells[0]
    state = State(step.inputs["dataset"], step.inputs["model"], "", None)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        Worker(plan.study, store, Device("cpu", 1)).run(state, step)
    (attempt,) = store.attempts(step.key)
    assert (attempt.error_class, attempt.state) == ("AcceleratorError", "lost")


def test_a_disk_that_takes_no_claim_is_an_outcome_of_each_cell(
    tiny_model: Path, tmp_path: Path
) -> None:
    plan = make_plan(Study.model_validate(study_content(tiny_model)))
    (tmp_path / "claims").symlink_to("/proc/nowhere")  # where nothing can be made, not by root
    steps = plan.cells[:2]
    state = State(steps[0].inputs["dataset"], steps[0].inputs["model"], "", None)
    outcomes = Worker(plan.study, Store(tmp_path), Device("cpu", 1)).run_together(state, steps)
    assert [outcome.kind for outcome in outcomes] == ["disk", "disk"]
    assert "claim" in outcomes[0].error
