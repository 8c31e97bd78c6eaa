"""Bad input: one clear line with file, field and fix, the right exit code, nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from distforget import cli
from distforget.errors import UsageError
from tests.conftest import study_content, write_study


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and error line, as `distforget` gives them (see `cli.main`)."""
    result = CliRunner().invoke(cli.app, arguments)
    if isinstance(result.exception, UsageError):
        return 2, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def with_model(folder: Path, spoil: Callable[[Path], None], tiny_model: Path) -> str:
    shutil.copytree(tiny_model, folder)
    spoil(folder)
    return str(folder)


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


STUDY_CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"learning": 1}, ["tiny.yaml", "learning", "unknown key", "unlearn"]),
    "unknown inner key": ({"finetune": {"lr": 1}}, ["finetune.lr", "learning_rate"]),
    "wrong type": ({"finetune": {"max_epochs": "many"}}, ["finetune.max_epochs", "integer"]),
    "not a number": ({"finetune": {"learning_rate": float("nan")}}, ["learning_rate", "finite"]),
    "unknown method": ({"methods": ["GA_XYZ"]}, ["GA_XYZ", "GA_KLN"]),
    "unknown setting": (
        {"methods": [{"name": "NPO", "settings": {"betta": 1}}]},
        ["NPO", "betta", "beta"],
    ),
    "dose too high": ({"doses": [9]}, ["doses", "data.similar.per_target"]),
    "too many targets": ({"unlearn_targets": 4}, ["unlearn_targets", "data.targets"]),
    "missing data file": (
        {"data": {"source": {"kind": "file", "path": "none.jsonl"}, "targets": 2}},
        ["data.source.path", "none.jsonl"],
    ),
    "missing file of questions": (
        {"probes": ["rouge", {"kind": "choices", "questions": 1, "path": "none.jsonl"}]},
        ["probes.choices.path", "none.jsonl"],
    ),
    "missing model folder": ({"models": [{"name": "m", "base": "./nowhere"}]}, ["m", "nowhere"]),
    "unknown builtin": (
        {"models": [{"name": "m", "base": "builtin:gpt9"}]},
        ["builtin:gpt9", "builtin:smollm2"],
    ),
}


@pytest.mark.parametrize("case", STUDY_CASES)
def test_bad_study(case: str, tiny_model: Path, tmp_path: Path) -> None:
    changes, words = STUDY_CASES[case]
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, **changes))
    code, line = command("run", str(study), "--store", str(tmp_path / "store"))
    assert code == 2
    assert [word for word in words if word not in line] == [], line
    assert "\n" not in line
    assert not (tmp_path / "store").exists()


def test_missing_study(tmp_path: Path) -> None:
    code, line = command("plan", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in line
    assert "demo" in line


def test_study_that_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [unclosed")
    code, line = command("plan", str(tmp_path / "bad.yaml"))
    assert code == 2
    assert "bad.yaml: not valid YAML" in line


@pytest.mark.parametrize("spoil", [pickle_only])
def test_pickle_only_checkpoint(
    spoil: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    model = with_model(tmp_path / "model", spoil, tiny_model)
    study = write_study(tmp_path / "tiny.yaml", study_content(model))
    code, line = command("run", str(study), "--store", str(tmp_path / "store"))
    assert code == 2
    assert "pytorch_model*.bin" in line
    assert "21 weights are missing" in line
    assert "save_pretrained" in line


def test_unreadable_weights(tiny_model: Path, tmp_path: Path) -> None:
    from distforget.tracks.text.models import load_model

    model = with_model(tmp_path / "model", truncated, tiny_model)
    with pytest.raises(UsageError, match=r"cannot read the model.*save_pretrained"):
        load_model(Path(model), "float32", "cpu")


def test_hub_unreachable(tmp_path: Path) -> None:
    from distforget.tracks.text.models import materialise

    origin = {"hub": "meta-llama/Llama-3.2-1B-Instruct", "revision": "main"}
    with pytest.raises(UsageError, match=r"HF_ENDPOINT.*HF_HOME.*local folder"):
        materialise(origin, tmp_path)


def test_store_that_cannot_be_written(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model))
    code, line = command("run", str(study), "--store", str(tmp_path / "store"))
    assert code == 2
    assert "--store" in line


def test_schema_drift_in_a_stored_table(tmp_path: Path) -> None:
    path = tmp_path / "studies/tiny/scores.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"model": ["m"], "surprise": [1]}), path)
    code, line = command("query", "tiny", "scores", "--store", str(tmp_path))
    assert code == 2
    assert "scores.parquet" in line
    assert "column" in line


def test_query_names_columns_and_tables(tmp_path: Path) -> None:
    code, line = command("query", "tiny", "nothing", "--store", str(tmp_path))
    assert code == 2
    assert "scores" in line
    code, line = command("query", "../evil", "scores", "--store", str(tmp_path))
    assert code == 2
    code, line = command("query", "tiny", "scores", "--store", str(tmp_path))
    assert code == 2
    assert "distforget run tiny" in line


def test_not_enough_memory() -> None:
    from distforget.engine.cluster import check_memory

    with pytest.raises(UsageError, match=r"big at once need 37\.3 GiB.*10\.0 GiB are free.*--cell"):
        check_memory("big", worker_bytes=20 * 10**9, workers=2, free=10 * 2**30)
    check_memory("small", worker_bytes=4 * 10**9, workers=2, free=10 * 2**30)


def test_bad_option(tiny_model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model))
    code, line = command("run", str(study), "--zero-stage", "7")
    assert code == 2
    assert "--zero-stage" in line
