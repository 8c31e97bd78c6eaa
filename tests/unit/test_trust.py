"""How far scores can be trusted, on made-up scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from distforget.analysis.trust import Trust, trust
from distforget.report.trust import shown, table_of

TARGETS = range(1, 9)


def row(metric: str, value: float, target: int, phase: str, **more: Any) -> dict[str, Any]:
    return {
        "metric": metric, "value": value, "target_index": target, "phase": phase, "role": "target",
        "model": "m", "dose": None, "seed": None, "method": None, "variant": None,
        "unlearned": None, "sample_id": target, "attack": "none", **more,
    }  # fmt: skip


def scores(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(rows))


def trained_and_floor(metric: str, known: list[float], floor: list[float]) -> list[dict[str, Any]]:
    rows = [
        row(metric, v, t, "pre_unlearn", dose=0, seed=0)
        for t, v in zip(TARGETS, known, strict=True)
    ]
    return rows + [row(metric, v, t, "pre_finetune") for t, v in zip(TARGETS, floor, strict=True)]


def naive_auc(known: list[float], floor: list[float]) -> float:
    wins = [1.0 if k > f else 0.5 if k == f else 0.0 for k in known for f in floor]
    return sum(wins) / len(wins)


def test_a_score_tells_as_often_as_a_plain_count_says() -> None:
    draw = np.random.default_rng(0)
    known, floor = draw.integers(0, 6, 8).tolist(), draw.integers(0, 4, 8).tolist()
    (found,) = trust(scores(trained_and_floor("rougeL_recall", known, floor)), [])
    assert found.tells == pytest.approx(naive_auc(known, floor))
    assert found.targets == 8
    assert math.isnan(found.orders)
    assert math.isnan(found.moves)


def test_a_score_that_falls_with_knowledge_is_turned() -> None:
    rows = trained_and_floor("answer_perplexity", [1.0] * 8, [9.0] * 8)
    rows += trained_and_floor("answer_probability", [0.1] * 8, [0.9] * 8)
    good, bad = trust(scores(rows), [])
    assert (good.metric, good.tells) == ("answer_perplexity", 1.0)
    assert (bad.metric, bad.tells) == ("answer_probability", 0.0)


def test_retrained_models_come_before_the_floor() -> None:
    rows = trained_and_floor("rougeL_recall", [0.9] * 8, [0.0] * 8)
    rows += [
        row("rougeL_recall", 0.95, t, "post_unlearn", dose=0, seed=0, method="retrain",
            variant="plain", unlearned=t)
        for t in TARGETS
    ]  # fmt: skip
    (found,) = trust(scores(rows), [])
    assert found.tells == 0.0


def test_doses_are_in_order_where_more_is_known() -> None:
    rows = trained_and_floor("rougeL_recall", [1.0] * 8, [0.0] * 8)
    for dose, values in ((0, [0.1, 0.5]), (4, [0.6, 0.5]), (10, [0.9, 0.4])):
        rows += [
            row("rougeL_recall", v, t, "pre_unlearn", role="similar", dose=dose, seed=0)
            for t, v in zip((1, 2), values, strict=True)
        ]
    (found,) = trust(scores(rows), [])
    assert found.orders == pytest.approx(np.mean([(1 + 0.5) / 2, (1 + 0) / 2, (1 + 0) / 2]))


def test_moves_are_changes_under_harmless_attacks_alone() -> None:
    rows = trained_and_floor("rougeL_recall", [1.0] * 8, [0.5] * 8)
    rows += [row("rougeL_recall", 0.9, t, "pre_unlearn", dose=0, seed=0, attack="mild")
             for t in TARGETS]  # fmt: skip
    rows += [row("rougeL_recall", 0.0, t, "pre_unlearn", dose=0, seed=0, attack="hard")
             for t in TARGETS]  # fmt: skip
    (found,) = trust(scores(rows), ["mild"])
    assert found.moves == pytest.approx(0.1 / 0.5)


def test_controls_and_p_values_are_no_scores_of_knowledge() -> None:
    rows = [r for m in ("ssim_null", "loss_p_value", "ssim")
            for r in trained_and_floor(m, [1.0] * 8, [0.0] * 8)]  # fmt: skip
    assert [one.metric for one in trust(scores(rows), [])] == ["ssim"]


def test_the_table_says_what_cannot_be_said() -> None:
    found = [Trust("rougeL_recall", 0.91, float("nan"), 0.05, 3)]
    words = shown(found, {"rougeL_recall": 0.25})
    assert words.rows == [["rougeL_recall", "0.91", "-", "0.05", "0.25"]]
    assert words.caption.startswith(
        "Lean on rougeL_recall (tells 0.91; with 3 targets that says little)."
    )
    assert table_of(found, {})["seconds"].tolist() == [None]
