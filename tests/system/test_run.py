"""A study from start to end on real Ray: what it leaves behind, and that nothing is done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from distforget import schemas
from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.probes import probes
from tests.conftest import study_content, write_study
from tests.running import Undisturbed, run

CELLS = 2 * 2 * 2
KEYS = ["phase", "dose", "method", "unlearned", "sample_id", "metric"]


def scores_of(tables: Path) -> pd.DataFrame:
    frame = pd.read_parquet(tables / "scores.parquet")
    return frame.sort_values(KEYS).reset_index(drop=True)


def test_every_cell_once_and_done(undisturbed: Undisturbed) -> None:
    cells = pd.read_parquet(undisturbed.tables / "cells.parquet")
    assert len(cells) == CELLS
    assert cells["cell"].is_unique
    assert set(cells["state"]) == {"done"}


def test_every_documented_column_is_written_and_every_written_one_documented(
    undisturbed: Undisturbed,
) -> None:
    of_probes = {name for probe in probes().values() for name in probe.tables}
    # Read in test_paraphrase, test_similar, test_similar_images and test_audit of this folder.
    elsewhere = {"completions", "rewrites", "embeddings", "similar", "requests"}
    elsewhere |= {"image_embeddings", "similar_images"}
    for table in set(schemas.tables()) - of_probes - elsewhere:
        written = pq.read_schema(undisturbed.tables / f"{table}.parquet")
        assert written.names == list(schemas.describe(table).columns), table
        rows = pq.read_table(undisturbed.tables / f"{table}.parquet")
        assert len(rows) > 0, table


def test_floor_and_ceiling_are_asked_once_a_model_and_dose(undisturbed: Undisturbed) -> None:
    answers = pd.read_parquet(undisturbed.tables / "answers.parquet")
    asked = 2 * (1 + 3) + 2
    assert (answers["phase"] == "pre_finetune").sum() == asked
    assert (answers["phase"] == "pre_unlearn").sum() == 2 * asked
    assert (answers["phase"] == "post_unlearn").sum() == CELLS * (1 + 3 + 2)


def test_similar_samples_are_asked_at_dose_0_too(undisturbed: Undisturbed) -> None:
    scores = scores_of(undisturbed.tables)
    at_0 = scores[(scores["dose"] == 0) & (scores["phase"] == "post_unlearn")]
    assert (at_0["role"] == "similar").any()


def test_comparisons_hold_the_experiments(undisturbed: Undisturbed) -> None:
    found = pd.read_parquet(undisturbed.tables / "comparisons.parquet")
    assert set(found["experiment"]) == {"alone", "E3", "E4", "E5"}
    assert set(found["metric"]) == {"fact_recall", "rougeL_recall"}
    assert len(found) == 2 * 8 * 2 * 2
    assert "verdict" in undisturbed.output


def test_a_second_start_computes_nothing(undisturbed: Undisturbed) -> None:
    before = scores_of(undisturbed.tables)
    again = run("run", str(undisturbed.study), "--store", str(undisturbed.store))
    assert again.process.returncode == 0, again.text
    assert "0 steps computed now" in again.text
    pd.testing.assert_frame_equal(scores_of(undisturbed.tables), before)


def test_a_probe_that_is_added_later_costs_only_itself(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    """No model is needed: the weights of all that was fine-tuned are gone."""
    store = tmp_path / "store"
    shutil.copytree(undisturbed.store, store)
    for path in store.rglob("*.safetensors"):
        path.unlink()
    fewer = ["facts", "likelihood", "choices", {"kind": "rouge", "metrics": ["rouge2_recall"]}]
    content = study_content(tiny_model, probes=fewer, verify={"metric": "rouge2_recall"})
    content["verify"] = {**study_content(tiny_model)["verify"], **content["verify"]}
    study = write_study(tmp_path / "tiny.yaml", content)
    again = run("run", str(study), "--store", str(store))
    assert again.process.returncode == 0, again.text
    states = CELLS + 2 + 1
    assert f"{states} steps computed now" in again.text
    scores = scores_of(store / "studies/tiny")
    before = scores_of(undisturbed.tables)
    assert "rouge2_recall" in set(scores["metric"]) - set(before["metric"])
    kept = ["answer_probability", "answer_perplexity", "fact_recall"]
    old, new = (frame[frame["metric"].isin(kept)] for frame in (before, scores))
    pd.testing.assert_frame_equal(
        old.reset_index(drop=True), new.reset_index(drop=True), check_exact=True
    )


def test_a_failed_cell_is_a_row_and_is_tried_again_when_asked(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed.store, store)
    for manifest in list((store / "done").glob("*/manifest.json")):
        if '"stage": "cell"' in manifest.read_text():
            shutil.rmtree(manifest.parent)
    references = list((store / "done").glob("*/reference.safetensors"))
    intact = {path: path.read_bytes() for path in references}
    for path in references:
        path.write_bytes(b"not safetensors")
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, doses=[0]))

    broken = run("run", str(study), "--store", str(store))
    assert broken.process.returncode == 1, broken.text
    cells = pd.read_parquet(store / "studies/tiny/cells.parquet").set_index("method")
    assert set(cells.loc["TV", "state"]) == {"done"}
    assert set(cells.loc["GA_KLN", "state"]) == {"failed"}
    assert cells.loc["GA_KLN", "error_traceback"].str.contains("Traceback").all()
    assert cells.loc["GA_KLN", "error_class"].notna().all()

    for path, content in intact.items():
        path.write_bytes(content)
    mended = run("run", str(study), "--store", str(store), "--retry-failed")
    assert mended.process.returncode == 0, mended.text
    cells = pd.read_parquet(store / "studies/tiny/cells.parquet")
    assert set(cells["state"]) == {"done"}
    assert set(cells[cells["method"] == "GA_KLN"]["attempts"]) == {1}


def test_a_training_that_ends_its_workers_blocks_only_its_own_cells(
    tiny_model: Path, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, methods=["TV"]))
    store = tmp_path / "store"
    first, second = sorted(make_plan(load_study(str(study))).finetunes, key=lambda step: step.key)
    work = store / "work" / first.key
    work.mkdir(parents=True)
    (work / "checkpoint.safetensors").write_bytes(b"not safetensors")
    ended = run("run", str(study), "--store", str(store), "--retries=0")
    assert ended.process.returncode == 1, ended.text
    assert "workers were lost 1 times" in ended.text
    cells = pd.read_parquet(store / "studies/tiny/cells.parquet").set_index("dose")["state"]
    assert set(cells[first.about["dose"]]) == {"blocked"}
    assert set(cells[second.about["dose"]]) == {"done"}
    assert f"missing ask tiny/{first.about['dose']}/0/pre_unlearn" in ended.text
