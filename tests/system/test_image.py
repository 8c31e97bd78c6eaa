"""An image study on real Ray and real digits: training in actors, attacks, all of its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

import distforget
from distforget import schemas
from distforget.engine.data import check_nearest
from distforget.errors import UsageError
from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study
from tests.conftest import write_study
from tests.running import Undisturbed, run
from tests.system.test_bad_input import command

NEAREST = {"nearest": 2, "gamma": 0.0, "paraphrases": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("image")
    content = {
        "name": "tiny",
        "data": {
            "source": "digits",
            "targets": 1,
            "per_class": 3,
            "unseen_per_class": 2,
            "similar": {"per_target": 1},
        },
        "models": [{"name": "mlp", "base": "mlp:16"}],
        "doses": [0, "all"],
        "methods": ["retrain", {"name": "retrain", "enhanced": NEAREST}, "relabel_GDN"],
        "unlearn_targets": 1,
        "placebo_targets": 1,
        "unlearn": {"retain_batch_size": 10, "retain_batches": 1},
        "verify": {"similar": 1, "others": 4, "unseen": 5},
        "fit": {"steps": 60, "record_every": 30},
        "probes": [{"kind": "reconstruction", "steps": 10}, "kinks", "kkt", "span", "loss"],
        "attacks": [{"kind": "quantise", "bits": 2}],
    }
    path = write_study(folder / "tiny.yaml", content)
    done = run("run", str(path), "--store", str(folder / "store"))
    assert done.process.returncode == 0, done.text
    return Undisturbed(path, folder / "store", done.text, folder / "store/studies/tiny")


def test_every_cell_is_done(study: Undisturbed) -> None:
    cells = pd.read_parquet(study.tables / "cells.parquet")
    assert set(cells["state"]) == {"done"}
    assert cells.groupby(["method", "variant"]).size().to_dict() == {
        ("retrain", "plain"): 2, ("retrain", "enhanced"): 2, ("relabel_GDN", "plain"): 2,
        ("relabel_GDN", "placebo"): 2,
    }  # fmt: skip
    assert (cells.loc[cells["method"] == "retrain", "steps"] == 0).all()


def test_training_is_written_down(study: Undisturbed) -> None:
    training = pd.read_parquet(study.tables / "training.parquet")
    runs = training.groupby(["dose", "without", "nearest"], dropna=False)
    assert len(runs) == 2 * 3
    assert set(training["epoch"]) == {0, 30, 60}
    for _, rows in runs:
        assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]
        assert rows["held_out_accuracy"].between(0, 1).all()
        assert (rows["kkt_residual"] > 0).all()
        free = rows["kkt_residual_free"]
        assert free.iloc[:-1].isna().all()
        assert 0 < free.iloc[-1] <= rows["kkt_residual"].iloc[-1]
    left_out = 30 - training.groupby("nearest", dropna=False)["tokens"].max() / 60
    assert left_out.tolist() == [1, 3, 0]


def test_each_asked_sample_has_scores_and_a_picture(study: Undisturbed) -> None:
    scores = pd.read_parquet(study.tables / "scores.parquet")
    pictures = pd.read_parquet(study.tables / "reconstructions.parquet")
    ssim = scores[scores["metric"] == "ssim"]
    assert set(ssim["role"]) == {"target", "similar", "other", "unseen"}
    keys = ["attack", "phase", "dose", "method", "variant", "sample_id"]
    both = ssim.merge(pictures, on=keys, how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    assert both["value"].equals(both["ssim"])


def test_the_table_of_images_is_as_documented(study: Undisturbed) -> None:
    written = pq.read_schema(study.tables / "reconstructions.parquet")
    assert written.names == list(schemas.describe("reconstructions").columns)


def test_a_picture_of_each_model_is_written(study: Undisturbed) -> None:
    assert (study.tables / "pictures-mlp-0.png").read_bytes().startswith(b"\x89PNG")


def test_comparisons_are_the_experiments_of_images(study: Undisturbed) -> None:
    found = pd.read_parquet(study.tables / "comparisons.parquet")
    assert set(found["experiment"]) == {"E1", "E2", "E6", "retrained", "placebo", "attack"}
    assert set(found["metric"]) == {"ssim_contrast"}
    assert set(found[found["role"] == "other"]["dose"]) == {0, 1}
    assert "Control: can the score tell trained from never-trained samples?" in study.output


def test_probes_score_the_weights_that_were_attacked(study: Undisturbed) -> None:
    plan, store = make_plan(load_study(str(study.study))), Store(study.store)
    scores = pd.read_parquet(study.tables / "scores.parquet")
    of_attack = scores.pivot_table("value", "metric", "attack", "count")
    assert of_attack["none"].equals(of_attack["quantise-2"])
    for attack in plan.attacks:
        weights = load_file(store.folder(attack.key) / "weights.safetensors")
        assert all(
            len(channel.unique()) <= 3 for w in weights.values() if w.ndim == 2 for channel in w
        )
        answers = pd.read_parquet(store.folder(attack.key) / "answers.parquet")
        p_of_answers = np.exp(np.concatenate(answers["expected_logprobs"].to_list()))
        (step,) = [
            s for s in plan.probes if s.inputs["state"] is attack and s.about["probe"] == "loss"
        ]
        found = pd.read_parquet(store.folder(step.key) / "scores.parquet")
        p = found.loc[found["metric"] == "label_probability", "value"]
        np.testing.assert_allclose(p, p_of_answers, atol=1e-5)


def test_a_second_start_computes_nothing_and_draws_the_full_page_when_asked(
    study: Undisturbed,
) -> None:
    figures = study.tables / "report/figures"
    assert not figures.exists()
    again = run("run", str(study.study), "--store", str(study.store), "--full-page")
    assert "0 steps computed now" in again.text
    assert len(list(figures.glob("*.png"))) > 1
    plan, store = make_plan(load_study(str(study.study))), Store(study.store)
    assert all(store.is_done(step.key) for step in plan.steps())


def test_a_run_that_was_cut_short_ends_with_the_rows_of_one_that_was_not(
    study: Undisturbed, tmp_path: Path
) -> None:
    whole, cut = Store(study.store), Store(tmp_path / "store")
    shutil.copytree(whole.root, cut.root)
    plan = make_plan(load_study(str(study.study)))
    last = (plan.finetunes[-1], plan.cells[-1])
    for step in last:
        shutil.rmtree(cut.folder(step.key))
    done = run("run", str(study.study), "--store", str(cut.root))
    assert "2 steps computed now" in done.text
    for step in last:
        assert cut.manifest(step.key)["threads"] == whole.manifest(step.key)["threads"]
    for table in ("training", "scores", "reconstructions", "comparisons"):
        unlike = ["seconds"] if table == "training" else []
        here, there = (
            pd.read_parquet(store.study_table("tiny", table)).drop(columns=unlike)
            for store in (cut, whole)
        )
        pd.testing.assert_frame_equal(here, there, check_exact=True)


@pytest.mark.parametrize("cell", ["mlp/1/retrain/1/0", "mlp/0/relabel_GDN+placebo/1/0"])
def test_a_cell_of_images_run_again_comes_out_as_it_is_stored(
    study: Undisturbed, cell: str
) -> None:
    code, output = command("reproduce", str(study.study), cell, "--store", str(study.store))
    assert code == 0, output
    assert "pixels" in output
    assert f"cell {cell}: " in output


def test_more_nearest_samples_than_are_trained_are_refused(study: Undisturbed) -> None:
    content = yaml.safe_load(study.study.read_text())
    for nearest in (28, 29):
        content["methods"][1]["enhanced"]["nearest"] = nearest
        plan = make_plan(Study.model_validate(content))
        if nearest == 28:
            check_nearest(plan, Store(study.store))
        else:
            with pytest.raises(UsageError, match=r"enhanced.nearest 29: .* on 30 .* at most 28"):
                check_nearest(plan, Store(study.store))


def test_an_export_of_images_has_their_pixels(study: Undisturbed, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, output = command("export", str(study.study), str(folder), "--store", str(study.store))
    assert code == 0, output
    pictures = datasets.load_dataset(
        str(folder), "reconstructions", split="train", cache_dir=str(tmp_path / "cache")
    )
    stored = pq.read_table(study.tables / "reconstructions.parquet")
    assert pictures["pixels"][:] == stored["pixels"].to_pylist()
    assert list(folder.glob("results/mlp/results_*.json"))


def test_the_same_from_python(study: Undisturbed) -> None:
    again = distforget.run(str(study.study), store=study.store)
    assert isinstance(again, distforget.Results)
    assert again.folder == study.tables
    frame = again["comparisons"]
    assert frame.equals(pd.read_parquet(study.tables / "comparisons.parquet"))
