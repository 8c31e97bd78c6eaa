"""`audit` on a model that plain torch fine-tuned on known near copies, and on data without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.running import Run, run
from tests.system.test_similar import planted, write
from tests.system.test_verify import fine_tune

NEAR = ("swapped", "reordered")


def pair(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("question", "answer")}


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its training data, and two forget lists: with near copies, and without any."""
    folder = tmp_path_factory.mktemp("audit")
    rows = planted()
    targets = {row["target"]: pair(row) for row in rows if row["kind"] == "target"}
    near = [pair(row) for row in rows if row["target"] == 1 and row["kind"] in NEAR]
    others = [targets[number] for number in range(3, 9)]
    others += [
        {"question": f"How many {thing} are in box {i}?", "answer": f"Box {i} has {i + 3} {thing}."}
        for i, thing in enumerate(("pins", "nuts", "keys", "beads", "coins") * 10)
    ]
    data = [targets[1], *near, targets[2], *others]
    write(folder / "train.jsonl", data)
    names = {1: "holm", 2: "brandt"}
    requests = [{"target_id": names[n], "role": "target", **targets[n]} for n in names]
    write(folder / "forget.jsonl", requests)
    write(folder / "alone.jsonl", [targets[2]])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model)
    fine_tune(tuned, tokenizer, data[:20])
    tuned.save_pretrained(folder / "tuned")
    tokenizer.save_pretrained(folder / "tuned")
    return folder


def audit(made: Path, tiny_model: Path, forget: str, name: str, *more: str) -> Run:
    return run(
        "audit", "--model", str(made / "tuned"), "--base", str(tiny_model), "--train-data",
        str(made / "train.jsonl"), "--forget", str(made / forget), "--store", str(made / "store"),
        "--name", name, "--cpus", "2", "--method", "GA_GDN", "--settings",
        "steps=4,learning_rate=1e-3", *more,
    )  # fmt: skip


def test_near_copies_are_named_and_tried(made: Path, tiny_model: Path) -> None:
    done = audit(made, tiny_model, "forget.jsonl", "near")
    assert done.process.returncode == 0, done.text
    folder = made / "store/studies/near"
    similar = pd.read_parquet(folder / "similar/similar.parquet")
    near = {row["question"] for row in planted() if row["target"] == 1 and row["kind"] in NEAR}
    mine = similar[(similar["target_id"] == "holm") & ~similar["copy"]]
    assert near <= set(mine["question"])
    found = pd.read_parquet(folder / "requests.parquet").set_index("target_id")
    assert found.loc["holm", "similar"] == len(mine)
    cells = pd.read_parquet(folder / "cells.parquet")
    ways = {"plain", "enhanced-similar", "enhanced-noise", "placebo"}
    assert ways <= set(cells["variant"])
    assert found.loc["holm", ["alone", "together", "enhanced"]].notna().all()
    page = (folder / "audit.html").read_text("utf-8")
    for words in ("holm", "brandt", "What to do", "before → after"):
        assert words in page
    listed = [json.loads(line) for line in (folder / "forget_list.jsonl").open()]
    wanted = [list(rows) for rows in found["recommended"]]
    assert [row["sample_id"] for row in listed if row["role"] == "similar"] == [
        number for name in dict.fromkeys(row["target_id"] for row in listed)
        for number in wanted[list(found.index).index(name)]
    ]  # fmt: skip


def test_numbers_follow_from_the_scores(made: Path) -> None:
    """Knowledge after unlearning alone, worked out again from table scores."""
    folder = made / "store/studies/near"
    scores = pd.read_parquet(folder / "scores.parquet")
    samples = pd.read_parquet(folder / "samples.parquet")
    (metric,) = (name for name in scores["metric"].unique() if name.startswith("rougeL_recall"))
    scores = scores[scores["metric"] == metric]
    found = pd.read_parquet(folder / "requests.parquet")
    for number, row in enumerate(found.to_dict("records"), 1):
        is_target = (samples["target_index"] == number) & (samples["role"] == "target")
        mine = scores[scores["sample_id"] == samples.loc[is_target, "sample_id"].iloc[0]]
        floor = mine.loc[mine["phase"] == "pre_finetune", "value"].iloc[0]
        alone = mine[(mine["variant"] == "plain") & (mine["unlearned"] == number)]["value"].iloc[0]
        assert row["alone"] == pytest.approx((alone - floor) / (1 - floor))


def test_data_with_nothing_similar_is_told_so(made: Path, tiny_model: Path) -> None:
    done = audit(made, tiny_model, "alone.jsonl", "alone")
    assert done.process.returncode == 0, done.text
    assert "There are no similar samples in the data" in done.text
    found = pd.read_parquet(made / "store/studies/alone/requests.parquet")
    assert found["similar"].tolist() == [0]
    assert found["together"].isna().all()
    assert "embedded" not in done.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "XY"), "unknown method"),
        (("--settings", "steps"), "--settings: 'steps' is not name=value"),
        (("--settings", "stepz=3"), "setting 'stepz'"),
        (("--model", "./nowhere"), "no folder ./nowhere"),
        (("--dtype", "float8"), "--dtype 'float8'"),
    ],
)
def test_a_bad_option_is_one_clear_line(
    made: Path, tiny_model: Path, more: tuple[str, ...], said: str
) -> None:
    done = audit(made, tiny_model, "alone.jsonl", "bad", *more)
    assert done.process.returncode == 2, done.text
    assert said in done.text
    assert "Traceback" not in done.text
