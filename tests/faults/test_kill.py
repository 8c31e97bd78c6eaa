"""Killed at different moments and started again: nothing lost, nothing doubled, equal rows."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from tests.running import Run, Undisturbed, run, start
from tests.system.test_run import CELLS, scores_of


def kill_a_worker(started: Run, kind: str) -> None:
    """SIGKILL to one Ray process of a kind."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.Process(started.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if kind in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    return
        time.sleep(0.2)
    raise AssertionError(f"no {kind} found: {started.text}")


def all_there_once(tables: Path, undisturbed: Undisturbed) -> None:
    cells = pd.read_parquet(tables / "cells.parquet")
    assert len(cells) == CELLS
    assert cells["cell"].is_unique
    assert set(cells["state"]) == {"done"}
    pd.testing.assert_frame_equal(scores_of(tables), scores_of(undisturbed.tables))


def test_workers_then_the_whole_group_killed(undisturbed: Undisturbed, tmp_path: Path) -> None:
    arguments = ("run", str(undisturbed.study), "--store", str(tmp_path), "--checkpoint-seconds=0")
    first = start(*arguments)
    assert first.until(lambda line: "epoch 1" in line), first.text
    kill_a_worker(first, "RayTrainWorker")
    assert first.until(lambda line: "cells: 8 to do" in line), first.text
    kill_a_worker(first, "CellTrainable")
    assert first.until(lambda line: "(2/8" in line), first.text
    first.kill_group()
    last = run(*arguments)
    assert last.process.returncode == 0, last.text
    all_there_once(tmp_path / "studies/tiny", undisturbed)


def test_the_whole_group_killed_while_training(undisturbed: Undisturbed, tmp_path: Path) -> None:
    arguments = ("run", str(undisturbed.study), "--store", str(tmp_path), "--checkpoint-seconds=0")
    first = start(*arguments)
    assert first.until(lambda line: "epoch 1" in line), first.text
    first.kill_group()
    last = run(*arguments)
    assert last.process.returncode == 0, last.text
    all_there_once(tmp_path / "studies/tiny", undisturbed)


def test_two_runs_on_one_store(undisturbed: Undisturbed, tmp_path: Path) -> None:
    arguments = ("run", str(undisturbed.study), "--store", str(tmp_path))
    first, second = start(*arguments), start(*arguments)
    assert first.finish() == 0, first.text
    assert second.finish() == 0, second.text
    assert "waiting" in first.text + second.text
    trained = [line for line in (first.text + second.text).splitlines() if "max_epochs" in line]
    assert len(trained) == 2, trained
    all_there_once(tmp_path / "studies/tiny", undisturbed)
