"""Retrained, enhanced and placebo cells on real Ray: a study that asks for all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.store import Store
from tests.conftest import study_content, write_questions, write_study
from tests.running import Undisturbed, run


@pytest.fixture(scope="module")
def study(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("reference")
    content = study_content(
        tiny_model,
        data={
            "targets": 2,
            "others": 9,
            "neighbours": 1,
            "similar": {"per_target": 2, "paraphrases": 2},
        },
        doses=[0, 2],
        methods=[
            "GA_KLN",
            {"name": "GA_KLN", "enhanced": {"paraphrases": 2}},
            {"name": "retrain", "targets": 1},
        ],
        placebo_targets=1,
        probes=["facts", "likelihood", "rouge", write_questions(folder / "questions.jsonl")],
    )
    path = write_study(folder / "tiny.yaml", content)
    done = run("run", str(path), "--store", str(folder / "store"))
    assert done.process.returncode == 0, done.text
    return Undisturbed(path, folder / "store", done.text, folder / "store/studies/tiny")


def test_every_kind_of_cell_is_there(study: Undisturbed) -> None:
    cells = pd.read_parquet(study.tables / "cells.parquet")
    found = cells.groupby(["method", "variant"]).size().to_dict()
    assert found == {
        ("GA_KLN", "plain"): 4, ("GA_KLN", "enhanced"): 4, ("GA_KLN", "placebo"): 2,
        ("retrain", "plain"): 2,
    }  # fmt: skip
    assert set(cells["state"]) == {"done"}
    assert set(cells.loc[cells["method"] == "retrain", "steps"]) == {0}


def test_a_retrained_model_never_took_the_target(study: Undisturbed) -> None:
    training = pd.read_parquet(study.tables / "training.parquet")
    tokens = training[training["epoch"] == 2].set_index(["dose", "without"])["tokens"]
    retrained = training["without"].notna()
    assert set(training.loc[retrained, "without"]) == {1}
    assert (training[~retrained].groupby(["dose", "epoch"]).size() == 1).all()
    for dose in (0, 2):
        assert tokens[dose, 1] < tokens[dose].loc[float("nan")].item()


def test_retrained_and_fine_tuned_weights_differ(study: Undisturbed) -> None:
    plan, store = make_plan(load_study(str(study.study))), Store(study.store)
    weights = [load_file(store.folder(s.key) / "weights.safetensors") for s in plan.finetunes]
    name = next(iter(weights[0]))
    assert len({float(w[name].double().sum()) for w in weights}) == 4


def test_the_tables_compare_with_all_of_them(study: Undisturbed) -> None:
    rows = pd.read_parquet(study.tables / "comparisons.parquet")
    quantities = set(rows["quantity"])
    assert {"enhanced-plain", "post-retrained", "post-placebo", "dose-dose"} <= quantities
    assert "retrain" in set(rows[rows["quantity"] == "dose-dose"]["method"])
    scores = pd.read_parquet(study.tables / "scores.parquet")
    assert {"answer_probability", "answer_perplexity"} <= set(scores["metric"])
    assert set(scores["role"]) == {"target", "similar", "neighbour", "other", "utility"}


def test_every_model_state_chooses_answers_to_the_same_questions(study: Undisturbed) -> None:
    samples = pd.read_parquet(study.tables / "samples.parquet").set_index("sample_id")
    asked = samples[samples["role"] == "utility"]
    answers = pd.read_parquet(study.tables / "answers.parquet")
    scores = pd.read_parquet(study.tables / "scores.parquet")
    state = ["phase", "dose", "method", "variant", "unlearned"]
    chosen = answers[answers["role"] == "utility"]
    for _, mine in chosen.groupby(state, dropna=False):
        assert set(mine["sample_id"]) == set(asked.index)
        assert len(mine) == len(asked) == 5
    assert chosen.groupby(state, dropna=False).ngroups == 1 + 2 + 12
    key = [*state, "sample_id"]
    both = chosen.merge(scores[scores["role"] == "utility"], on=key, validate="one_to_one")
    assert len(both) == len(chosen)
    for row in both.itertuples():
        assert row.answer in asked["choices"][row.sample_id]
        assert row.metric == "choice_accuracy"
        assert row.value == float(row.answer == asked["answer"][row.sample_id])
    assert "E8 utility" in study.output


def test_the_output_says_what_should_be_about_zero(study: Undisturbed) -> None:
    assert "GA_KLN+enhanced" in study.output
    assert "about 0" in study.output
    assert "neighbour" in study.output
