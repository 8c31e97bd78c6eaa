"""Writers that are real: llama.cpp's server with a real small model, a model in actors, a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.llama_server import llama_server
from tests.running import run


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server() as url:
        yield f"{url}/v1"


def study(model: Path, folder: Path, writer: dict[str, Any]) -> Path:
    rows = [
        {"question": "Where was Ada Byron born?", "answer": "She was born in London in 1815.",
         "role": "target"},
        {"question": "Who is there?", "answer": "Nobody.", "role": "other"},
        {"question": "Who was there?", "answer": "Somebody.", "role": "other"},
    ]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    similar = {"kind": "paraphrase", "per_target": 2, "queries": 3, "rounds": 0,
               "too_few": "fewer", "writer": writer}  # fmt: skip
    source = {"kind": "file", "path": str(folder / "pairs.jsonl")}
    data = {"source": source, "targets": 1, "others": 2, "similar": similar}
    content = study_content(
        model, data=data, doses=["all"], methods=["TV"], unlearn_targets=1,
        unlearn={"retain_batch_size": 1, "retain_batches": 1},
    )  # fmt: skip
    return write_study(folder / "tiny.yaml", content)


def completions(path: Path, store: Path) -> pd.DataFrame:
    done = run("run", str(path), "--store", str(store))
    assert done.process.returncode == 0, done.text
    assert "restatements: " in done.text
    found = pd.read_parquet(store / "studies/tiny/completions.parquet")
    assert len(found) == 6
    assert found["seed"].is_unique
    rewrites = pd.read_parquet(store / "studies/tiny/rewrites.parquet")
    similar = pd.read_parquet(store / "studies/tiny/samples.parquet").query("role == 'similar'")
    usable = rewrites[rewrites["reason"] == ""]
    assert similar["answer"].tolist() == usable["answer"].tolist()[:2]
    return found


def test_a_real_server_and_then_its_completions_as_a_file(
    server: str, tiny_model: Path, tmp_path: Path
) -> None:
    writer = {"kind": "endpoint", "url": server, "model": "smollm2", "max_tokens": 32,
              "concurrency": 2}  # fmt: skip
    said = completions(study(tiny_model, tmp_path, writer), tmp_path / "store")
    assert (said["completion"].str.len() > 0).all()
    assert (said["seconds"] > 0).all()
    ready = tmp_path / "ready.parquet"
    said.to_parquet(ready)
    path = study(tiny_model, tmp_path, {"kind": "ready", "path": str(ready)})
    again = completions(path, tmp_path / "again")
    columns = ["target_index", "part", "number", "completion"]
    pd.testing.assert_frame_equal(said[columns], again[columns])


def test_a_model_in_actors_draws_by_seed(tiny_model: Path, tmp_path: Path) -> None:
    writer = {"kind": "model", "path": str(tiny_model), "max_tokens": 8}
    path = study(tiny_model, tmp_path, writer)
    first, second = (completions(path, tmp_path / name) for name in ("one", "two"))
    pd.testing.assert_series_equal(first["completion"], second["completion"])
    assert first["completion"].nunique() > 1
