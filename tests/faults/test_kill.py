"""Killed at different moments and started again: nothing lost, nothing doubled, equal rows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.system.conftest import Run, Undisturbed, run, start
from tests.system.test_run import CELLS, scores_of


def kill_group(started: Run) -> None:
    started.kill_group()


def kill_a_ray_worker(started: Run) -> None:
    """SIGKILL to one process that trains or runs cells."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in psutil.Process(started.process.pid).children(recursive=True):
            name = " ".join(process.cmdline())
            if "RayTrainWorker" in name or "CellTrainable" in name:
                os.kill(process.pid, signal.SIGKILL)
                return
        time.sleep(0.2)
    raise AssertionError("no worker found")


@pytest.mark.parametrize(
    ("moment", "kill"),
    [
        ("epoch 1", kill_group),
        ("epoch 1", kill_a_ray_worker),
        ("cells: 8 to do", kill_a_ray_worker),
        ("(2/8", kill_group),
    ],
    ids=["training-group", "training-worker", "cell-worker", "cells-group"],
)
def test_killed_and_started_again(
    undisturbed: Undisturbed, tmp_path: Path, moment: str, kill: Callable[[Run], None]
) -> None:
    arguments = ("run", str(undisturbed.study), "--store", str(tmp_path), "--checkpoint-seconds=0")
    first = start(*arguments)
    assert first.until(lambda line: moment in line), first.text
    kill(first)
    if kill is kill_group:
        last = run(*arguments)
    else:
        first.finish()
        last = first
    assert last.process.returncode == 0, last.text
    cells = pd.read_parquet(tmp_path / "studies/tiny/cells.parquet")
    assert len(cells) == CELLS
    assert cells["cell"].is_unique
    assert set(cells["state"]) == {"done"}
    pd.testing.assert_frame_equal(
        scores_of(tmp_path / "studies/tiny"), scores_of(undisturbed.tables)
    )


def test_two_runs_on_one_store(undisturbed: Undisturbed, tmp_path: Path) -> None:
    arguments = ("run", str(undisturbed.study), "--store", str(tmp_path))
    first, second = start(*arguments), start(*arguments)
    assert first.finish() == 0, first.text
    assert second.finish() == 0, second.text
    assert "waiting" in first.text + second.text
    trained = [line for line in (first.text + second.text).splitlines() if "max_epochs" in line]
    assert len(trained) == 2, trained
    cells = pd.read_parquet(tmp_path / "studies/tiny/cells.parquet")
    assert len(cells) == CELLS
    assert cells["cell"].is_unique
    pd.testing.assert_frame_equal(
        scores_of(tmp_path / "studies/tiny"), scores_of(undisturbed.tables)
    )
