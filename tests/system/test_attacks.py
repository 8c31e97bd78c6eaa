"""Attacks on real Ray: an attack added later costs only itself, and its answers are those of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from distforget.loading import load_study
from distforget.models import PromptConfig
from distforget.plan import make_plan
from distforget.store import Store
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.models import load_tokenizer
from tests.conftest import study_content, write_study
from tests.running import Undisturbed, run
from tests.unit.test_attacks import naive

STATES = 1 + 2 + 8
"""Floor, ceilings, cells."""


def rounded_by_hand(module: nn.Module, bits: int) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and "head" not in name:
            layer.weight.data = naive(layer.weight.data, bits)


def logprobs_of(module: Any, folder: Path, samples: pa.Table) -> list[np.ndarray]:
    """Of each token of the true answers, one sample at a time."""
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    examples = encoder.encode(samples)
    found = []
    for row in range(len(samples)):
        batch = encoder.batch(examples, [row])
        size = int(examples.answer_sizes[row])
        with torch.no_grad():
            each = module(input_ids=batch.input_ids_BT).logits[0].log_softmax(-1)[:-1]
        tokens = batch.input_ids_BT[0, 1:]
        found.append(each.gather(1, tokens[:, None])[-size:, 0].numpy())
    return found


def test_an_attack_that_is_added_later_costs_only_itself(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed.store, store)
    content = study_content(
        tiny_model, attacks=["quantise", {"kind": "quantise", "bits": 2}, "rephrase"]
    )
    study = write_study(tmp_path / "tiny.yaml", content)
    done = run("run", str(study), "--store", str(store))
    assert done.process.returncode == 0, done.text
    plan = make_plan(load_study(str(study)))
    assert f"{3 * STATES * (1 + len(plan.study.probes))} steps computed now" in done.text
    assert "after the attack quantise-2" in done.text

    tables = store / "studies/tiny"
    answers = pd.read_parquet(tables / "answers.parquet")
    assert answers["attack"].value_counts().nunique() == 1
    for name in ("answers", "scores", "comparisons"):
        before = pd.read_parquet(undisturbed.tables / f"{name}.parquet")
        after = pd.read_parquet(tables / f"{name}.parquet")
        assert set(after["attack"]) == {"none", "quantise-4", "quantise-2", "rephrase-1"}
        kept = after[after["attack"] == "none"].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, before, check_exact=True)

    found = pd.read_parquet(tables / "comparisons.parquet")
    brought_back = found[found["quantity"] == "post-unattacked"]
    assert len(brought_back) == 3 * 2 * 8  # attacks, scores, cells
    unattacked = found[(found["attack"] == "none") & (found["quantity"] == "post-pre_unlearn")]
    keys = ["model", "method", "seed", "unlearned", "role", "dose", "metric"]
    both = brought_back.merge(unattacked, on=keys)
    assert len(both)
    np.testing.assert_allclose(both["right_x"], both["left_y"])

    (ceiling,) = [s for s in plan.asks if s.about.get("dose") == 3]
    module = AutoModelForCausalLM.from_pretrained(tiny_model)
    weights = Store(store).folder(ceiling.inputs["finetune"].key) / "weights.safetensors"
    module.load_state_dict(load_file(weights), strict=False)
    module.tie_weights()
    every = pq.read_table(tables / "samples.parquet")
    first = every.to_pandas().query("similar_rank == 1").set_index("target_index")["question"]

    def check(attack: str, samples: pa.Table) -> None:
        mine = answers[(answers["phase"] == "pre_unlearn") & (answers["dose"] == 3)]
        mine = mine[mine["attack"] == attack]
        expected = logprobs_of(module, tiny_model, samples.take(pa.array(mine["sample_id"])))
        for logprobs, wanted in zip(mine["expected_logprobs"], expected, strict=True):
            np.testing.assert_allclose(logprobs, wanted, atol=1e-4)

    questions = [
        first[row["target_index"]] if row["role"] == "target" else row["question"]
        for row in every.to_pylist()
    ]
    place = every.schema.get_field_index("question")
    check("rephrase-1", every.set_column(place, "question", pa.array(questions)))
    rounded_by_hand(module, 2)
    check("quantise-2", every)


def test_relearning_is_of_cells_alone_and_scores_say_what_came_back(
    undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed.store, store)
    relearning = [
        {"kind": "relearn", "rows": on, "steps": 8, "learning_rate": 1e-3}
        for on in ("similar", "others")
    ]
    content = study_content(tiny_model, attacks=relearning)
    study = write_study(tmp_path / "tiny.yaml", content)
    done = run("run", str(study), "--store", str(store))
    assert done.process.returncode == 0, done.text
    assert "after the attack relearn-similar-8" in done.text
    tables = store / "studies/tiny"
    answers = pd.read_parquet(tables / "answers.parquet")
    attacked = answers[answers["attack"] != "none"]
    assert set(attacked["attack"]) == {"relearn-similar-8", "relearn-others-8"}
    assert set(attacked["phase"]) == {"post_unlearn"}

    def mean_logprob(attack: str, role: str) -> float:
        mine = answers[
            (answers["attack"] == attack)
            & (answers["phase"] == "post_unlearn")
            & (answers["role"] == role)
            & (answers["unlearned"] == answers["target_index"])
        ]
        return float(np.mean([np.mean(tokens) for tokens in mine["expected_logprobs"]]))

    # The similar samples themselves are learned by training on them.
    assert mean_logprob("relearn-similar-8", "similar") > mean_logprob("none", "similar") + 0.1
    trusted = run("trust", str(study), "--store", str(store))
    assert trusted.process.returncode == 0, trusted.text
    assert "Lean on " in trusted.text
