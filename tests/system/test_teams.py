"""A cell of two workers has the rows of a cell of one, however its memory is shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.store import Store
from tests.conftest import study_content, write_study
from tests.running import Undisturbed, run, start

FAST = {"learning_rate": 1e-3}
KEY = ["model", "dose", "method", "variant", "unlearned", "phase", "seed", "sample_id"]


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Methods with and without a regulariser, a last operation and noise, one worker a cell."""
    methods = [{"name": name, "settings": FAST} for name in ("GA_GDN", "NPO_KLN", "TV")]
    noisy = {"name": "GA_GDN", "settings": FAST, "enhanced": {"gamma": 0.1, "paraphrases": 0}}
    return _undisturbed(
        study_content(tiny_model, methods=[*methods, noisy], doses=["all"]), tmp_path_factory
    )


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    methods = [{"name": name, "settings": FAST} for name in ("GA_GDN", "TV")]
    content = study_content(tiny_model, methods=methods, doses=["all"], adapter={"rank": 4})
    return _undisturbed(content, tmp_path_factory)


def _undisturbed(content: dict[str, object], factory: pytest.TempPathFactory) -> Undisturbed:
    folder = factory.mktemp("teams")
    study, store = write_study(folder / "tiny.yaml", content), folder / "store"
    done = run("run", str(study), "--store", str(store))
    assert done.process.returncode == 0, done.text
    return Undisturbed(study, store, done.text, store / "studies/tiny")


def without_cells(undisturbed: Undisturbed, to: Path) -> Path:
    """A copy of the store in which everything is done but the cells and what follows them."""
    shutil.copytree(undisturbed.store, to)
    shutil.rmtree(to / "studies")
    plan, store = make_plan(load_study(str(undisturbed.study))), Store(to)
    again = [s for s in plan.probes if s.inputs["state"].stage == "cell"]
    for step in (*plan.cells, *again):
        shutil.rmtree(store.folder(step.key))
    return to


@pytest.mark.parametrize("stage", ["1", "2", "3"])
def test_sharded_by_deepspeed(whole: Undisturbed, tmp_path: Path, stage: str) -> None:
    store = without_cells(whole, tmp_path / "store")
    sharded = ["--workers-per-cell", "2", "--stepper", "deepspeed", "--zero-stage", stage]
    done = run("run", str(whole.study), "--store", str(store), *sharded)
    assert done.process.returncode == 0, done.text
    as_one_worker(store, whole)


def test_adapters_share_the_questions(adapters: Undisturbed, tmp_path: Path) -> None:
    store = without_cells(adapters, tmp_path / "store")
    done = run("run", str(adapters.study), "--store", str(store), "--workers-per-cell", "2")
    assert done.process.returncode == 0, done.text
    as_one_worker(store, adapters)


def test_a_team_that_loses_a_worker_loses_no_cell(whole: Undisturbed, tmp_path: Path) -> None:
    store = without_cells(whole, tmp_path / "store")
    started = start("run", str(whole.study), "--store", str(store), "--workers-per-cell", "2")

    def helps(process: psutil.Process) -> bool:
        return "_Helper" in " ".join(process.cmdline())

    assert started.until("(2/8"), started.text
    assert started.wait_for(lambda: started.kill_worker(helps), pause=0.2), started.text
    assert started.finish() == 0, started.text
    as_one_worker(store, whole)


def as_one_worker(store: Path, whole: Undisturbed) -> None:
    """The same rows in the same order; what differs is how sums were rounded."""
    mine, one = (
        {
            name: pd.read_parquet(folder / f"{name}.parquet").sort_values(by, ignore_index=True)
            for name, by in (("cells", ["cell"]), ("answers", KEY))
        }
        for folder in (store / "studies/tiny", whole.tables)
    )
    assert set(mine["cells"]["state"]) == {"done"}
    for columns in (["cell"], ["cell", "first_loss", "last_loss"]):
        pd.testing.assert_frame_equal(mine["cells"][columns], one["cells"][columns], rtol=1e-3)
    pd.testing.assert_frame_equal(mine["answers"][KEY], one["answers"][KEY])
    for own, expected in zip(
        mine["answers"]["expected_logprobs"], one["answers"]["expected_logprobs"], strict=True
    ):
        np.testing.assert_allclose(own, expected, atol=2e-3)
    # Two tokens may be as likely as each other but for rounding.
    assert (mine["answers"]["answer"] == one["answers"]["answer"]).mean() > 0.95
