"""A study of LoRA adapters on real Ray: cells in one batch, stored adapters, asking them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.store import Store
from tests.conftest import study_content, write_questions, write_study
from tests.running import Undisturbed, run
from tests.system.test_attacks import logprobs_of, rounded_by_hand
from tests.system.test_bad_input import command


@pytest.fixture(scope="module")
def study(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("adapters")
    content = study_content(
        tiny_model,
        data={
            "targets": 3,
            "others": 4,
            "similar": {"per_target": 3},
        },
        adapter={"rank": 4},
        probes=["facts", "likelihood", "rouge", write_questions(folder / "questions.jsonl")],
        methods=["GA_KLN", "TV", {"name": "retrain", "targets": 1}],
        attacks=[{"kind": "quantise", "bits": 3}],
        finetune={"max_epochs": 3, "batch_size": 4, "learning_rate": 1e-2},
    )
    path = write_study(folder / "tiny.yaml", content)
    done = run("run", str(path), "--store", str(folder / "store"))
    assert done.process.returncode == 0, done.text
    return Undisturbed(path, folder / "store", done.text, folder / "store/studies/tiny")


def test_every_cell_is_done_and_has_learned_something(study: Undisturbed) -> None:
    cells = pd.read_parquet(study.tables / "cells.parquet")
    assert len(cells) == 2 * (2 * 2 + 1)
    assert set(cells["state"]) == {"done"}
    training = pd.read_parquet(study.tables / "training.parquet")
    loss = training[training["without"].isna()].set_index(["dose", "epoch"])["loss"]
    assert all(loss[dose, 3] < loss[dose, 1] for dose in (0, 3))


def test_adapters_are_stored_for_peft_and_are_small(study: Undisturbed) -> None:
    plan, store = make_plan(load_study(str(study.study))), Store(study.store)
    for step in plan.cells:
        folder = store.folder(step.key) / "adapter"
        assert folder.exists() == (step.about["method"] != "retrain")
        if folder.exists():
            assert (folder / "adapter_config.json").is_file()
            assert (folder / "adapter_model.safetensors").stat().st_size < 100_000


@pytest.mark.parametrize("name", ["tiny/3/GA_KLN/2/0", "tiny/0/TV/1/0", "tiny/3/retrain/1/0"])
def test_a_cell_asked_again_answers_as_it_did(study: Undisturbed, name: str) -> None:
    cells = pd.read_parquet(study.tables / "cells.parquet").set_index("cell")
    answers = pd.read_parquet(study.tables / "answers.parquet")
    samples = pd.read_parquet(study.tables / "samples.parquet").set_index("sample_id")
    of = cells.loc[name]
    mine = answers[
        (answers["method"] == of["method"])
        & (answers["dose"] == of["dose"])
        & (answers["unlearned"] == of["unlearned"])
        & (answers["role"] == "target")
    ].iloc[0]
    question = samples.loc[mine["sample_id"], "question"]
    asked = run("ask", str(study.study), name, question, "--store", str(study.store))
    assert asked.process.returncode == 0, asked.text
    assert "pre_finetune" in asked.text
    assert "pre_unlearn" in asked.text
    (line,) = [line for line in asked.lines if "post_unlearn" in line]
    assert mine["answer"].split("\n")[0][:20].strip() in line


@pytest.mark.parametrize("name", ["tiny/3/GA_KLN/2/0", "tiny/3/retrain/1/0"])
def test_a_cell_of_a_batch_run_again_alone_has_the_same_scores(
    study: Undisturbed, name: str
) -> None:
    arguments = "reproduce", str(study.study), name, "--store", str(study.store)
    code, output = command(*arguments, "--tolerance", "1e-4")
    assert code == 0, output
    assert f"cell {name}: " in output


@pytest.mark.parametrize("method", ["GA_KLN", "TV"])
def test_an_attack_is_on_the_model_with_its_adapter_merged(
    study: Undisturbed, tiny_model: Path, method: str
) -> None:
    plan, store = make_plan(load_study(str(study.study))), Store(study.store)
    step = plan.cell(f"tiny/3/{method}/2/0")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(model, str(store.folder(step.key) / "adapter"))
    module = model.merge_and_unload()
    rounded_by_hand(module, 3)
    answers = pq.read_table(study.tables / "answers.parquet", filters=[
        ("attack", "=", "quantise-3"), ("method", "=", method), ("dose", "=", 3),
        ("unlearned", "=", 2), ("role", "!=", "utility"),
    ])  # fmt: skip
    samples = pq.read_table(study.tables / "samples.parquet").take(answers["sample_id"])
    expected = logprobs_of(module, tiny_model, samples)
    assert len(expected)
    for logprobs, wanted in zip(answers["expected_logprobs"].to_pylist(), expected, strict=True):
        np.testing.assert_allclose(logprobs, wanted, atol=1e-4)


def test_a_cell_that_is_not_there_is_named(study: Undisturbed) -> None:
    asked = run("ask", str(study.study), "tiny/9/GA/1/0", "Who?", "--store", str(study.store))
    assert asked.process.returncode == 2
    assert "tiny/9/GA/1/0" in asked.text
