"""Runs and workers killed on one store, two runs at once: nothing lost or doubled, equal rows."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from tests.conftest import study_content, write_study
from tests.faults.checks import equal_to_undisturbed, finished, nothing_left_over
from tests.running import Run, Undisturbed, run, start


@pytest.fixture
def long_trained(tiny_model: Path, tmp_path: Path) -> Undisturbed:
    """The tiny study with seconds of fine-tuning in which it can be struck, run once."""
    finetune = {"max_epochs": 60, "batch_size": 4, "learning_rate": 1e-3}
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, finetune=finetune))
    store = tmp_path / "undisturbed"
    done = run("run", str(study), "--store", str(store))
    assert done.process.returncode == 0, done.text
    return Undisturbed(study, store, done.text, store / "studies/tiny")


def kill_a(kind: str, started: Run) -> None:
    def wanted(process: psutil.Process) -> bool:
        return kind in " ".join(process.cmdline())

    assert started.wait_for(lambda: started.kill_worker(wanted), pause=0.2), started.text


def test_one_store_killed_in_turn_and_by_two_runs_at_once(
    long_trained: Undisturbed, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = ("run", str(long_trained.study), "--store", str(store), "--checkpoint-seconds=0")
    pair = [start(*command), start(*command)]
    assert pair[0].wait_for(lambda: any(one.says("epoch 1") for one in pair), pause=0.02)
    pair.sort(key=lambda one: one.says("epoch 1"))
    waits, trains = pair
    assert waits.until("waiting"), waits.text
    assert not trains.says("floor"), trains.text
    trains.kill_group()
    assert waits.until("epoch 1"), waits.text
    kill_a("RayTrainWorker", waits)
    assert waits.until("cells: 8 to do"), waits.text
    kill_a("CellTrainable", waits)
    assert waits.until("(1/8"), waits.text
    waits.kill_group()

    before = finished(store)
    pair = [start(*command), start(*command)]
    assert [one.finish() for one in pair] == [0, 0], pair[0].text + pair[1].text
    after = finished(store)
    assert after.keys() == finished(long_trained.store).keys()
    assert before.items() <= after.items(), "a finished result was written again"
    text = pair[0].text + pair[1].text
    computed = sum(int(found) for found in re.findall(r"(\d+) steps computed now", text))
    assert computed == len(after) - len(before), text
    equal_to_undisturbed(store, long_trained)
    nothing_left_over(store)
