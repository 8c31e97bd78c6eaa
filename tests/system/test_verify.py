"""`verify` on checkpoints that no code of this project made, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from distforget.loading import load_study
from distforget.verifying import study_of
from tests.running import run

PLACES = ("Bern", "Oslo", "Rome")


def rows() -> list[dict[str, str]]:
    found = []
    for number, place in enumerate(PLACES):
        asked = f"Where was man {number} born?"
        found.append({"role": "target", "target_id": place, "question": asked,
                      "answer": f"He was born in {place}.", "facts": place})  # fmt: skip
        found += [
            {"role": "similar", "target_id": place, "question": f"{asked} {i}",
             "answer": f"In the town of {place}.", "facts": place}
            for i in range(2)
        ]  # fmt: skip
    found += [
        {"role": "other", "target_id": "", "question": f"Where was woman {i} born?",
         "answer": f"In {i}."}
        for i in range(4)
    ]  # fmt: skip
    return found


def encoded(tokenizer: Any, row: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and labels in the chat template of the tokenizer."""
    asked = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(row["answer"], add_special_tokens=False)["input_ids"], 1]
    tokens = torch.tensor([before + answer])
    return tokens, torch.tensor([[-100] * len(before) + answer])


def fine_tune(model: Any, tokenizer: Any, learned: list[dict[str, str]]) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(20):
        for row in learned:
            tokens, labels = encoded(tokenizer, row)
            optimiser.zero_grad()
            model(input_ids=tokens, labels=labels).loss.backward()
            optimiser.step()


def npo(model: Any, reference: Any, tokenizer: Any, forget: list[dict[str, str]]) -> None:
    """(2/beta) * log(1 + (p/p_ref)^beta), with a loop of its own."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        for row in forget:
            tokens, labels = encoded(tokenizer, row)
            size = int((labels != -100).sum())
            with torch.no_grad():
                before = reference(input_ids=tokens, labels=labels).loss * size
            ratio = before - model(input_ids=tokens, labels=labels).loss * size
            optimiser.zero_grad()
            (-(2 / 0.5) * logsigmoid(-0.5 * ratio)).backward()
            optimiser.step()


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    data = rows()
    torch.manual_seed(0)
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model)
    fine_tune(tuned, tokenizer, data)
    unlearned = AutoModelForCausalLM.from_pretrained(tiny_model)
    unlearned.load_state_dict(tuned.state_dict())
    npo(unlearned, tuned, tokenizer, [row for row in data if row["role"] == "target"])
    for name, model in (("before", tuned), ("after", unlearned)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    return folder


def test_two_checkpoints_are_verified(made: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = run(
        "verify", "--before", str(made / "before"), "--after", str(made / "after"),
        "--base", str(tiny_model), "--data", str(made / "data.jsonl"),
        "--store", str(tmp_path / "store"),
    )  # fmt: skip
    assert done.process.returncode == 0, done.text
    assert "Without --retrained" in done.text
    assert "Without --base" not in done.text
    assert "fine-tuning: " not in done.text
    tables = tmp_path / "store/studies/verify"
    study = load_study(str(tables / "study.yaml"))
    assert (study.data.targets, study.data.similar.per_target) == (3, 2)
    answers = pd.read_parquet(tables / "answers.parquet")
    samples = pd.read_parquet(tables / "samples.parquet").set_index("sample_id")["answer"]
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    answers["km"] = [
        scorer.score(samples[sample], said)["rougeL"].recall
        for sample, said in zip(answers["sample_id"], answers["answer"], strict=True)
    ]
    found = pd.read_parquet(tables / "comparisons.parquet")
    found = found[found["metric"] == "rougeL_recall"]
    assert set(found["quantity"]) == {"post-pre_unlearn", "post-pre_finetune"}
    targets = answers[answers["target_index"].notna()]
    for row in found.to_dict("records"):
        mine = targets[
            (targets["target_index"] == row["unlearned"]) & (targets["role"] == row["role"])
        ]
        after = mine[mine["phase"] == "post_unlearn"]["km"].mean()
        before = mine[mine["phase"] == row["quantity"].removeprefix("post-")]["km"].mean()
        assert row["left"] == pytest.approx(after)
        assert row["right"] == pytest.approx(before)


def test_a_target_without_similar_samples_does_not_hide_those_of_others(tmp_path: Path) -> None:
    some = [r for r in rows() if r["role"] != "similar" or r["target_id"] != PLACES[0]]
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in some))
    study, found = study_of(path, "a/before", "a/after")
    assert (found.targets, found.similar) == (3, 2)
    assert (study.data.similar.per_target, study.verify.similar) == (2, 2)
    assert getattr(study.data.similar, "too_few") == "fewer"  # noqa: B009 # of this kind alone


def test_forgotten_and_kept_rows_may_lie_in_two_files(made: Path, tmp_path: Path) -> None:
    """As TOFU's splits do; columns beyond question and answer are passed over."""
    forget = [row for row in rows() if row["role"] == "target"]
    kept = [row for row in rows() if row["role"] == "other"]
    for name, content in (("forget10", forget), ("retain90", kept)):
        lines = [{"question": r["question"], "answer": r["answer"], "tier": 1} for r in content]
        (tmp_path / f"{name}.json").write_text(json.dumps(lines))
    done = run(
        "verify", "--before", str(made / "before"), "--after", str(made / "after"),
        "--data", str(tmp_path / "forget10.json"), "--retain", str(tmp_path / "retain90.json"),
        "--store", str(tmp_path / "store"),
    )  # fmt: skip
    assert done.process.returncode == 0, done.text
    assert "names no similar samples" in done.text
    samples = pd.read_parquet(tmp_path / "store/studies/verify/samples.parquet")
    counts = samples["role"].value_counts().to_dict()
    assert (counts["target"], counts["other"]) == (len(forget), len(kept))
    assert set(samples["question"]) == {row["question"] for row in forget + kept}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ('{"question": "Where?", "answer": "Here.", "role": "other"}\n', "no row has the role"),
        ('{"question": "Where?", "role": "target"}\n', "column 'answer'"),
    ],
)
def test_bad_data_is_refused_before_a_model_is_loaded(
    content: str, said: str, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    done = run("verify", "--before", "a/b", "--after", "a/c", "--data", str(data))
    assert done.process.returncode == 2
    assert said in done.text
