"""compare, reproduce and export on the tables of a real run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from distforget import schemas
from distforget.loading import load_study
from distforget.plan import STAGE_VERSIONS, make_plan
from distforget.store import Store
from tests.conftest import study_content, write_study
from tests.running import Undisturbed
from tests.system.test_bad_input import command

CELL = "tiny/3/GA_KLN/1/0"


@pytest.fixture
def copy(undisturbed: Undisturbed, tmp_path: Path) -> Store:
    shutil.copytree(undisturbed.store, tmp_path / "copy", symlinks=True)
    return Store(tmp_path / "copy")


def plus(table: pa.Table, row: int, more: float) -> pa.Table:
    """A scores table with one score raised."""
    values = table["value"].to_pylist()
    values[row] += more
    place = table.schema.get_field_index("value")
    return table.set_column(place, table.schema.field(place), pa.array(values, pa.float64()))


@pytest.mark.parametrize("cell", [CELL, "tiny/0/TV/2/0"])
def test_a_cell_run_again_comes_out_as_it_is_stored(undisturbed: Undisturbed, cell: str) -> None:
    store = str(undisturbed.store)
    before = {path: path.stat().st_mtime_ns for path in undisturbed.store.rglob("*")}
    code, output = command("reproduce", str(undisturbed.study), cell, "--store", store)
    assert code == 0, output
    assert re.search(rf"cell {cell}: (equal|within tolerance)", output)
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.store.rglob("*")}


def test_a_doctored_score_is_found(undisturbed: Undisturbed, copy: Store) -> None:
    plan = make_plan(load_study(str(undisturbed.study)))
    of_cell = (probe for probe in plan.probes if probe.inputs["state"] is plan.cell(CELL))
    step = next(probe for probe in of_cell if probe.about["probe"] == "rouge")
    path = copy.folder(step.key) / "scores.parquet"
    scores = schemas.read(path, "scores")
    schemas.write(plus(scores, 4, 0.01), "scores", path)
    arguments = "reproduce", str(undisturbed.study), CELL, "--store", str(copy.root)
    code, output = command(*arguments)
    assert code == 1
    assert "0.01" in output
    assert f"cell {CELL}: different" in output
    assert str(scores["sample_id"][4]) in output
    code, output = command(*arguments, "--tolerance", "0.02")
    assert (code, f"cell {CELL}: within tolerance" in output) == (0, True)


def test_a_payload_that_is_not_the_keys_is_refused(undisturbed: Undisturbed, copy: Store) -> None:
    step = make_plan(load_study(str(undisturbed.study))).cell(CELL)
    (copy.folder(step.key) / "payload.json").write_text(step.payload.replace("GA", "GB"))
    with pytest.raises(Exception, match=r"payload\.json: not what the result's key says"):
        command("reproduce", str(undisturbed.study), CELL, "--store", str(copy.root))


@pytest.mark.parametrize("stage", ["cell", "finetune"])
def test_a_result_of_another_version_says_so(
    undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    old = STAGE_VERSIONS[stage]
    monkeypatch.setitem(STAGE_VERSIONS, stage, 99)
    store = str(undisturbed.store)
    code, line = command("reproduce", str(undisturbed.study), CELL, "--store", store)
    assert code == 2
    assert f"version {old} of stage {stage}, and this code has version 99" in line
    assert "run the study again" in line


def test_a_result_of_other_settings_says_which(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    method = {"name": "GA_KLN", "settings": {"steps": 3}}
    other = study_content(tiny_model, methods=[method, "TV"])
    study = write_study(tmp_path / "tiny.yaml", other)
    store = str(undisturbed.store)
    code, line = command("reproduce", str(study), CELL, "--store", store)
    assert code == 2
    assert "cell.config.steps: 5, now 3" in line
    code, line = command("export", str(study), str(tmp_path / "out"), "--store", store)
    assert (code, "other settings" in line, (tmp_path / "out").exists()) == (2, True, False)


def test_a_study_and_its_copy_are_the_same(undisturbed: Undisturbed, copy: Store) -> None:
    study, stores = str(undisturbed.study), (str(undisturbed.store), str(copy.root))
    arguments = "compare", study, study, "--store", stores[0], "--store-b", stores[1]
    code, output = command(*arguments)
    assert code == 0, output
    assert "no field differs" in output
    assert "cells: 8 done on both sides" in output
    assert "the studies are the same: settings, cells and scores" in output
    scores = copy.read_study_table("tiny", "scores")
    metric = pc.equal(scores["metric"], "rougeL_recall")
    after = pc.and_(metric, pc.equal(scores["phase"], "post_unlearn"))
    raised = pc.index(after, True).as_py()
    copy.write_study_table("tiny", "scores", plus(scores, raised, 0.25))
    code, output = command(*arguments)
    assert "the scores differ" in output
    assert "1 undecided" in output
    assert command(*arguments, "--metric", "rouge9")[0] == 2


def test_an_export_is_read_by_datasets(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    arguments = "export", str(undisturbed.study), str(folder), "--store", str(undisturbed.store)
    code, output = command(*arguments)
    assert code == 0, output
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    tables = {path.stem: pq.read_table(path) for path in undisturbed.tables.glob("*.parquet")}
    assert {config["config_name"] for config in front["configs"]} == set(tables)
    for name, table in tables.items():
        read = datasets.load_dataset(
            str(folder), name, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert read.to_list() == table.to_pylist(), name
        for column, about in schemas.describe(name).columns.items():
            assert f"| {column} | `{about.type}`" in card
            assert (about.unit or "") in card
    scores = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(scores) == len(tables["scores"])
    assert command(*arguments)[0] == 2


def test_results_are_in_the_harness_form(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    store = str(undisturbed.store)
    assert command("export", str(undisturbed.study), str(folder), "--store", store)[0] == 0
    (path,) = folder.glob("results/tiny/results_*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    tasks = set(found["results"])
    assert len(tasks) == (1 + 2) * 3 + 2 * 2 * 3
    for part in ("configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert set(found[part]) == tasks, part
    frame = pq.read_table(undisturbed.tables / "scores.parquet").to_pandas()
    mine = frame[
        (frame["method"] == "GA_KLN") & (frame["dose"] == 3) & (frame["role"] == "similar")
    ]
    of_targets = mine[mine["metric"] == "rougeL_recall"].groupby("unlearned")["value"].mean()
    task = found["results"]["GA_KLN_dose_3_similar"]
    assert task["rougeL_recall,none"] == pytest.approx(of_targets.mean())
    assert task["rougeL_recall_stderr,none"] == pytest.approx(of_targets.std() / 2**0.5)
    samples = found["n-samples"]["GA_KLN_dose_3_similar"]
    assert samples == {"original": 6, "effective": 6}
    better = found["higher_is_better"]
    assert better["GA_KLN_dose_3_target"]["rougeL_recall"] is False
    assert better["GA_KLN_dose_3_target"]["answer_perplexity"] is True
    assert better["GA_KLN_dose_3_other"]["rougeL_recall"] is True
    assert better["GA_KLN_dose_3_similar"]["rougeL_recall"] is None
    assert found["configs"]["GA_KLN_dose_3_target"]["metadata"]["cells_done"] == 2
