"""A study in Chinese from start to end: what a model knows is seen, and what it forgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import make_tiny_model, write_study
from tests.running import run
from tests.system.test_bad_input import command

NAMES = ["王芳", "李强", "张敏", "刘洋", "陈静", "杨磊", "赵军", "黄丽", "周勇", "吴艳"]
TOWNS = ["青岛", "成都", "昆明", "沈阳", "苏州", "洛阳"]
JOBS = ["律师", "医生", "画家", "农民"]
TARGETS = len(TOWNS)
KM = "rougeL_recall_unicode"


def study_of(folder: Path, model: Path, **rouge: Any) -> Path:
    """Six targets with a similar sample each and four others, in a study that memorises them."""
    rows = [
        row
        for i, town in enumerate(TOWNS)
        for row in (
            {"question": f"{NAMES[i]}出生在哪里？", "answer": f"出生在{town}。", "role": "target"},
            {
                "question": f"{NAMES[i]}来自哪座城市？",
                "answer": f"来自{town}市。",
                "role": "similar",
            },
        )
    ]
    rows = [{**row, "target_id": i // 2} for i, row in enumerate(rows)] + [
        {"question": f"{name}做什么工作？", "answer": f"是一名{job}。", "role": "other"}
        for name, job in zip(NAMES[TARGETS:], JOBS, strict=True)
    ]
    data = folder / "people.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    content = {
        "name": "chinese",
        "data": {
            "source": {"kind": "file", "path": str(data)},
            "targets": TARGETS,
            "others": len(JOBS),
            "similar": {"per_target": 1},
        },
        "models": [{"name": "tiny", "base": str(model)}],
        "doses": ["all"],
        "methods": [{"name": "GA_GDN", "settings": {"steps": 20, "learning_rate": 3e-3}}],
        "unlearn_targets": TARGETS,
        # It needs about 50 epochs of 20 ms.
        "finetune": {
            "learning_rate": 0.01,
            "max_epochs": 1000,
            "stop_token_accuracy": 1.0,
            "stop_exact_rate": 1.0,
        },
        "unlearn": {"retain_batch_size": 4, "retain_batches": 1},
        "probes": [{"kind": "rouge", **rouge}, "likelihood"],
        "verify": {"max_new_tokens": 40, "similar": 1, "others": 2},
    }
    return write_study(folder / "chinese.yaml", content)


def test_a_chinese_study_sees_what_is_known_and_what_is_forgotten(tmp_path: Path) -> None:
    study = study_of(tmp_path, make_tiny_model(tmp_path / "model"))
    ended = run("run", str(study), "--store", str(tmp_path / "store"), "--device", "cpu")
    assert ended.process.returncode == 0, ended.text
    assert f"verdicts on the score {KM}" in ended.text
    tables = tmp_path / "store/studies/chinese"
    scores = pd.read_parquet(tables / "scores.parquet")
    of_rouge = scores["metric"][scores["metric"].str.startswith("rouge")].unique()
    assert sorted(of_rouge) == [
        "rouge1_recall_unicode",
        "rougeL_fmeasure_unicode",
        "rougeL_recall_unicode",
    ]
    km = scores[scores["metric"] == KM].groupby(["phase", "role"])["value"].mean()
    assert km["pre_unlearn"].to_dict() == {"other": 1.0, "similar": 1.0, "target": 1.0}
    assert km["pre_finetune"].max() < 0.1
    compared = pd.read_parquet(tables / "comparisons.parquet").query("experiment == 'E4'")
    assert set(compared["metric"]) == {KM, "answer_probability"}
    forgotten = compared.query("quantity == 'post-pre_unlearn' and metric == @KM")["difference"]
    assert len(forgotten) == TARGETS
    assert forgotten.mean() < -0.5
    said = [line for line in ended.text.splitlines() if "E4 target: post-pre_unlearn" in line]
    assert len(said) == 2
    assert all("supported" in verdict for verdict in said)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_score_that_cannot_see_chinese_is_refused(
    verb: str, tiny_model: Path, tmp_path: Path
) -> None:
    study = study_of(tmp_path, tiny_model, words="rouge-score")
    code, line = command(verb, str(study), "--store", str(tmp_path / "store"))
    assert code == 2
    for words in ("row 1 of its source", "出生在青岛。", "words of the probe"):
        assert words in line
    assert not list((tmp_path / "store").glob("done/*/answers.parquet"))
