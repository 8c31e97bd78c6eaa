"""The tiny study where there is a GPU: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.running import run


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_study_on_a_gpu(dtype: str, tiny_model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, dtype=dtype))
    arguments = ["--device", "cuda", "--cells-per-device", "2"]
    done = run("run", str(study), "--store", str(tmp_path / "store"), *arguments)
    assert done.process.returncode == 0, done.text
    cells = pd.read_parquet(tmp_path / "store/studies/tiny/cells.parquet")
    assert set(cells["state"]) == {"done"}


@pytest.mark.gpu
def test_a_study_of_images_on_a_gpu(tmp_path: Path) -> None:
    done = run("run", "smoke-image", "--store", str(tmp_path / "store"))
    assert done.process.returncode == 0, done.text
    cells = pd.read_parquet(tmp_path / "store/studies/smoke-image/cells.parquet")
    assert set(cells["state"]) == {"done"}
