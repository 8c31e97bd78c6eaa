"""However fine-tuning is laid out over workers, it takes the steps of plain torch with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.running import Undisturbed, run


@pytest.mark.parametrize("stage", ["3"])
def test_zero_with_two_workers_follows_torch_with_one(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path, stage: str
) -> None:
    content = study_content(tiny_model, doses=["all"], methods=["TV"], unlearn_targets=1)
    study = write_study(tmp_path / "tiny.yaml", content)
    arguments = ["--stepper", "deepspeed", "--zero-stage", stage, "--train-workers", "2"]
    sharded = run("run", str(study), "--store", str(tmp_path / "store"), *arguments)
    assert sharded.process.returncode == 0, sharded.text
    plain = pd.read_parquet(undisturbed.tables / "training.parquet")
    plain = plain[plain["dose"] == 3].reset_index(drop=True)
    other = pd.read_parquet(tmp_path / "store/studies/tiny/training.parquet")
    np.testing.assert_allclose(other["loss"][1:], plain["loss"][1:], rtol=1e-3)
    assert list(other["tokens"]) == list(plain["tokens"])


def test_two_groups_side_by_side_train_what_one_trains(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    arguments = ["--store", str(tmp_path / "store"), "--train-groups", "2"]
    both = run("run", str(undisturbed.study), *arguments)
    assert both.process.returncode == 0, both.text
    tables = (undisturbed.tables, tmp_path / "store/studies/tiny")
    one, two = (pd.read_parquet(folder / "training.parquet") for folder in tables)
    assert len(one.groupby("dose")) == 2
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-3)
    assert list(two["tokens"]) == list(one["tokens"])
