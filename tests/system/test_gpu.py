"""What runs on a GPU, against the same on the CPU: `pytest -m gpu`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from distforget.models import PromptConfig
from distforget.study import VerifyConfig
from distforget.tracks.text.encoding import Encoder, TextExamples
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.conftest import study_content, write_study
from tests.running import run
from tests.unit.test_generation import ARCHITECTURES, make_case, replaced

pytestmark = pytest.mark.gpu

STUDIES: dict[str, dict[str, Any]] = {
    "weights": {
        "data": {"targets": 3, "others": 4, "similar": {"per_target": 3, "paraphrases": 2}},
        "methods": [
            "GA_KLN", "GA_GDN", "NPO_KLN", "NPO_GDN", "GDR", "GDR_KLN", "GDR_GDN", "TV",
            {"name": "NPO_GDN", "enhanced": {"paraphrases": 2}},
            {"name": "retrain", "targets": 1},
        ],
    },
    "adapters": {"adapter": {"rank": 4}},
}  # fmt: skip


def tables(study: Path | str, store: Path, *arguments: str) -> dict[str, pd.DataFrame]:
    """Tables of a study after a run in which every cell was done."""
    done = run("run", str(study), "--store", str(store), *arguments)
    assert done.process.returncode == 0, done.text
    (folder,) = (store / "studies").iterdir()
    found = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("cells", "training")}
    assert set(found["cells"]["state"]) == {"done"}
    return found


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_computes_what_it_computes_on_the_cpu(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, **STUDIES[kind]))
    there = tables(study, tmp_path / "gpu", "--device", "cuda", "--cells-per-device", "2")
    here = tables(study, tmp_path / "cpu", "--device", "cpu")
    np.testing.assert_allclose(there["training"]["loss"], here["training"]["loss"], rtol=1e-3)
    for column in ("steps", "diverged"):
        assert list(there["cells"][column]) == list(here["cells"][column])
    for column in ("first_loss", "last_loss"):
        np.testing.assert_allclose(there["cells"][column], here["cells"][column], rtol=1e-2)


@pytest.mark.parametrize("checkpointing", [[], ["--gradient-checkpointing"]])
def test_a_study_in_bfloat16(checkpointing: list[str], tiny_model: Path, tmp_path: Path) -> None:
    content = study_content(tiny_model, dtype="bfloat16", methods=["NPO_KLN"])
    study = write_study(tmp_path / "tiny.yaml", content)
    store = tmp_path / "store"
    training = tables(study, store, "--device", "cuda", *checkpointing)["training"]
    loss = training.set_index(["dose", "epoch"])["loss"]
    assert all(loss[dose, 2] < loss[dose, 1] for dose in (0, 3))
    weights = [load_file(file) for file in store.glob("done/*/weights.safetensors")]
    assert {str(tensor.dtype) for file in weights for tensor in file.values()} == {"torch.bfloat16"}


@pytest.mark.parametrize("length", [64, 192, 320])
def test_padded_lengths_of_64_modulo_128_have_finite_gradients(
    length: int, tiny_model: Path
) -> None:
    """There cuDNN's attention returns NaN from its backward pass (pytorch issue 196678)."""
    config = AutoConfig.from_pretrained(tiny_model)
    config.update({"hidden_size": 256, "intermediate_size": 512, "head_dim": 64})
    module = AutoModelForCausalLM.from_config(config)
    encoder = Encoder(load_tokenizer(tiny_model), PromptConfig())
    folder = tiny_model.parent / f"heads-{length}"
    module.save_pretrained(folder)
    learner = TextLearner(load_model(folder, "bfloat16", "cuda"), encoder, VerifyConfig())
    draw = np.random.default_rng(0)
    sizes = np.array([length, length // 2, length - 5, 20])
    examples = TextExamples(
        draw.integers(10, 90, sizes.sum()).astype(np.int32), np.cumsum([0, *sizes]), sizes // 2
    )
    learner.fit(examples, range(len(sizes))).nll_sum.backward()
    gradients = [p.grad for p in learner.module.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_a_model_of_a_billion_weights_in_bfloat16_learns(tiny_model: Path, tmp_path: Path) -> None:
    """The shape of Llama-3.2-1B with random weights; 100 steps of the preset's kind."""
    config = AutoConfig.from_pretrained(tiny_model)
    config.update(
        {
            "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "vocab_size": 128256,
        }
    )  # fmt: skip
    folder = tmp_path / "billion"
    with torch.device("cuda"):
        module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    module.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    del module
    content = study_content(
        folder, dtype="bfloat16", doses=["all"], methods=["GA_KLN"], unlearn_targets=1,
        data={"targets": 50, "others": 90, "similar": {"per_target": 10}},
        finetune={"max_epochs": 5, "batch_size": 32, "learning_rate": 1e-4},
    )  # fmt: skip
    study = write_study(tmp_path / "billion.yaml", content)
    training = tables(study, tmp_path / "store", "--device", "cuda")["training"]
    assert training["step"].iloc[-1] == 100
    assert training["loss"].iloc[-1] < 0.7 * training["loss"].iloc[1]
    assert training["skipped_steps"].iloc[-1] == 0


@pytest.mark.parametrize(
    ("dtype", "arguments"),
    [
        ("float32", ["--zero-stage", "1"]),
        ("float32", ["--zero-stage", "3"]),
        ("float32", ["--zero-stage", "2", "--offload"]),
        ("bfloat16", ["--zero-stage", "3", "--gradient-checkpointing"]),
    ],
)
def test_deepspeed_follows_torch(
    dtype: str, arguments: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    content = study_content(tiny_model, dtype=dtype, doses=["all"], methods=["TV"])
    study = write_study(tmp_path / "tiny.yaml", content)
    plain = tables(study, tmp_path / "torch", "--device", "cuda")["training"]
    arguments = ["--stepper", "deepspeed", *arguments]
    found = tables(study, tmp_path / "zero", "--device", "cuda", *arguments)["training"]
    tolerance = 1e-3 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(found["loss"], plain["loss"], rtol=tolerance)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_a_naive_loop_on_the_cpu(architecture: str, tmp_path: Path) -> None:
    case = make_case(architecture, tmp_path)
    case.module.to("cuda")
    assert case.generate().tokens == case.answers
    drafts = replaced(case, random.Random(0))
    assert case.generate(drafts).tokens == case.answers


def test_a_study_of_images(tmp_path: Path) -> None:
    there = tables("smoke-image", tmp_path / "gpu", "--device", "cuda")["training"]
    here = tables("smoke-image", tmp_path / "cpu", "--device", "cpu")["training"]
    np.testing.assert_allclose(there["loss"], here["loss"], rtol=0.05)
    np.testing.assert_allclose(there["held_out_accuracy"], here["held_out_accuracy"], atol=0.1)
