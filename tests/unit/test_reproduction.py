"""What counts as equal, within tolerance and different when a cell is run again."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest

from distforget import schemas
from distforget.analysis.reproduction import compare_values, worst

ROW = {
    "attack": "none",
    "track": "text", "dataset": "d", "model": "m", "phase": "post_unlearn", "dose": 3, "seed": 0,
    "method": "GA", "variant": "plain", "unlearned": 1, "role": "target", "target_index": 1,
}  # fmt: skip


def scores(*values: float) -> pa.Table:
    rows = [{**ROW, "sample_id": i, "metric": "a", "value": v} for i, v in enumerate(values)]
    return schemas.from_rows("scores", rows)


def answers(text: str, logprobs: list[float] | None = None) -> pa.Table:
    row = {**ROW, "sample_id": 0, "answer": text, "answer_tokens": 2}
    return schemas.from_rows("answers", [{**row, "expected_logprobs": logprobs}])


@pytest.mark.parametrize(
    ("stored", "new", "word"),
    [
        (0.5, 0.5, "equal"),
        (math.nan, math.nan, "equal"),
        (math.inf, math.inf, "equal"),
        (0.5, 0.5 + 9e-7, "within tolerance"),
        (0.5, 0.5 - 9e-7, "within tolerance"),
        (0.5, 0.5 + 2e-6, "different"),
        (1000.0, 1000.0009, "within tolerance"),
        (1000.0, 1000.002, "different"),
        (0.5, math.nan, "different"),
        (1.0, math.inf, "different"),
    ],
)
def test_numbers_within_the_tolerance(stored: float, new: float, word: str) -> None:
    (value,) = compare_values({"scores": scores(stored)}, {"scores": scores(new)}, 1e-6)
    assert value.word == word


@pytest.mark.parametrize(
    ("stored", "new", "word", "distance"),
    [
        ([-1.5, -2.0], [-1.5, -2.0], "equal", 0.0),
        ([-1.5, -2.0], [-1.5, -2.00001], "within tolerance", 1e-5),
        ([-1.5, -2.0], [-1.4, -2.00001], "different", 0.1),
        ([-1.5, -2.0], [-1.5], "different", None),
        ([-1.5], None, "different", None),
        ([math.nan], [math.nan], "equal", None),
    ],
)
def test_lists_are_as_far_apart_as_their_numbers(
    stored: list[float], new: list[float] | None, word: str, distance: float | None
) -> None:
    one, other = ({"answers": answers("a", logprobs)} for logprobs in (stored, new))
    found = {v.column: v for v in compare_values(one, other, 1e-4)}["expected_logprobs"]
    assert found.word == word
    if distance is not None:
        assert found.distance == pytest.approx(distance, abs=1e-6)


def test_an_answer_is_equal_or_different() -> None:
    stored = {"answers": answers("in Bern"), "scores": scores(0.5)}
    new: dict[str, Any] = {"answers": answers("in bern"), "scores": scores(0.5)}
    found = compare_values(stored, new, 1.0)
    different = [value for value in found if value.word == "different"]
    assert [(v.column, v.stored, v.new) for v in different] == [("answer", "in Bern", "in bern")]
    assert worst(found) == "different"
    assert worst(compare_values(stored, stored, 0.0)) == "equal"


def test_the_order_of_rows_does_not_matter_and_a_missing_one_does() -> None:
    stored = {"scores": scores(0.1, 0.2, 0.3)}
    turned = {"scores": stored["scores"].take([2, 0, 1])}
    assert worst(compare_values(stored, turned, 0.0)) == "equal"
    less = {"scores": scores(0.1, 0.2)}
    (gone,) = [v for v in compare_values(stored, less, 0.0) if v.word != "equal"]
    assert (gone.row, gone.new) == ("sample 2, a", "no row")
    assert worst(compare_values({}, less, 0.0)) == "different"


def test_times_and_attempts_are_not_compared() -> None:
    row = {
        **{k: v for k, v in ROW.items() if k not in ("phase", "attack", "role", "target_index")},
        "cell": "c", "key": "k", "state": "done", "diverged": False, "steps": 5,
        "unlearn_seconds": 1.0, "attempts": 0,
    }  # fmt: skip
    one = schemas.from_rows("cells", [row])
    slow = schemas.from_rows("cells", [{**row, "unlearn_seconds": 9.0, "attempts": 2}])
    assert worst(compare_values({"cells": one}, {"cells": slow}, 0.0)) == "equal"
    other = schemas.from_rows("cells", [{**row, "steps": 4}])
    assert worst(compare_values({"cells": one}, {"cells": other}, 0.0)) == "different"
