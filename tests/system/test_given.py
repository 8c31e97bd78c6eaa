"""Studies of models that were trained and unlearned elsewhere: whole models and LoRA adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from distforget.loading import load_study
from distforget.plan import make_plan
from tests.conftest import study_content, write_study
from tests.running import Undisturbed, run
from tests.system.test_attacks import logprobs_of

TEXT = "Where was the man born? He was born in the town in 1950."


def few_steps(model: Any, folder: Path, rate: float) -> None:
    """Training of somebody else's: plain torch on one sentence, up or down."""
    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")["input_ids"]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=abs(rate))
    for _ in range(3):
        loss = model(input_ids=tokens, labels=tokens).loss * float(np.sign(rate))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folders, and the modules that they should come to, by method; '' is the tuned model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found: dict[str, Any] = {"folder": folder}
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model)
    few_steps(tuned, tiny_model, 0.5)
    tuned.save_pretrained(folder / "tuned")
    tokenizer.save_pretrained(folder / "tuned")
    found["tuned"] = tuned
    whole = AutoModelForCausalLM.from_pretrained(folder / "tuned")
    few_steps(whole, tiny_model, -0.3)
    whole.save_pretrained(folder / "whole")
    tokenizer.save_pretrained(folder / "whole")
    found["whole"] = whole
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(base, lora)
    few_steps(adapted, tiny_model, 0.3)
    adapted.save_pretrained(str(folder / "adapter"))
    found["adapter"] = adapted.merge_and_unload()
    return found


def content_of(model: Path, made: dict[str, Any], **changes: Any) -> dict[str, Any]:
    place = made["folder"]
    given = {
        "name": "tiny",
        "base": str(model),
        "tuned": str(place / "tuned"),
        "unlearned": [
            {"method": "whole", "path": str(place / "whole")},
            {"method": "adapter", "path": str(place / "adapter"), "targets": [2]},
        ],
    }
    return study_content(model, **{"models": [given], "doses": ["all"], "methods": [], **changes})


@pytest.fixture(scope="module")
def study(
    tiny_model: Path, made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("given")
    path = write_study(folder / "tiny.yaml", content_of(tiny_model, made))
    done = run("run", str(path), "--store", str(folder / "store"))
    assert done.process.returncode == 0, done.text
    return Undisturbed(path, folder / "store", done.text, folder / "store/studies/tiny")


def test_nothing_is_trained_and_nothing_unlearned(study: Undisturbed) -> None:
    plan = make_plan(load_study(str(study.study)))
    assert plan.finetunes == plan.references == ()
    cells = pd.read_parquet(study.tables / "cells.parquet")
    assert sorted(cells["cell"]) == [
        "tiny/3/adapter/2/0", "tiny/3/whole/1/0", "tiny/3/whole/2/0",
    ]  # fmt: skip
    assert set(cells["state"]) == {"done"}
    assert (cells["steps"] == 0).all()
    assert "fine-tuning: " not in study.output


@pytest.mark.parametrize("state", ["tuned", "whole", "adapter"])
def test_each_state_is_the_model_that_was_given(
    study: Undisturbed, made: dict[str, Any], tiny_model: Path, state: str
) -> None:
    answers = pd.read_parquet(study.tables / "answers.parquet")
    phase = "pre_unlearn" if state == "tuned" else "post_unlearn"
    mine = answers[answers["phase"] == phase]
    mine = mine if state == "tuned" else mine[mine["method"] == state]
    samples = pq.read_table(study.tables / "samples.parquet").take(pa.array(mine["sample_id"]))
    expected = logprobs_of(made[state], tiny_model, samples)
    assert len(expected)
    for logprobs, wanted in zip(mine["expected_logprobs"], expected, strict=True):
        np.testing.assert_allclose(logprobs, wanted, atol=1e-4)


def test_all_three_phases_are_compared(study: Undisturbed) -> None:
    found = pd.read_parquet(study.tables / "comparisons.parquet")
    assert set(found["quantity"]) == {"post-pre_unlearn", "post-pre_finetune"}
    asked = run("ask", str(study.study), "tiny/3/whole/1/0", "Who?", "--store", str(study.store))
    assert asked.process.returncode == 0, asked.text
    assert asked.text.count("unlearn") >= 2


@pytest.mark.parametrize("adapter", [None, {"rank": 2}])
def test_methods_start_from_the_given_model_and_without_a_base_there_is_no_floor(
    adapter: dict[str, int] | None, tiny_model: Path, made: dict[str, Any], tmp_path: Path
) -> None:
    given = {
        "name": "tiny",
        "tuned": str(made["folder"] / "tuned"),
        "unlearned": [{"method": "retrain", "path": str(made["folder"] / "whole")}],
    }
    content = content_of(
        tiny_model,
        made,
        models=[given],
        methods=["GA_KLN", "TV"],
        attacks=["quantise"],
        adapter=adapter,
    )
    path = write_study(tmp_path / "tiny.yaml", content)
    done = run("run", str(path), "--store", str(tmp_path / "store"))
    assert done.process.returncode == 0, done.text
    tables = tmp_path / "store/studies/tiny"
    cells = pd.read_parquet(tables / "cells.parquet")
    assert cells.groupby("method")["steps"].sum().to_dict() == {
        "GA_KLN": 10,
        "TV": 10,
        "retrain": 0,
    }
    assert set(cells["state"]) == {"done"}
    found = pd.read_parquet(tables / "comparisons.parquet")
    assert set(found["quantity"]) == {"post-pre_unlearn", "post-retrained", "post-unattacked"}


def test_an_adapter_without_its_base_is_refused(
    tiny_model: Path, made: dict[str, Any], tmp_path: Path
) -> None:
    given = {"name": "tiny", "tuned": str(made["folder"] / "adapter")}
    content = content_of(tiny_model, made, models=[given], methods=["GA"])
    path = write_study(tmp_path / "tiny.yaml", content)
    done = run("run", str(path), "--store", str(tmp_path / "store"))
    assert done.process.returncode == 2
    assert "is a LoRA adapter; give the model that it belongs to as base" in done.text
