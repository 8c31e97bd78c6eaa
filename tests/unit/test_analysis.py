"""Comparisons, verdicts and damage on a hand-made table of scores, against loops over its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distforget import schemas
from distforget.analysis.comparisons import compare
from distforget.analysis.verdicts import damages, verdicts

METRIC = "rougeL_recall"
MODELS, METHODS, DOSES, SEEDS, TARGETS, SIMILAR = ("m1", "m2"), ("GA", "TV"), (0, 3), (0, 1), 3, 3
MISSING = {("m1", "GA", 3, 0, 2), ("m2", "TV", 0, 1, 1), ("m2", "TV", 3, 1, 3)}

PAPER = (
    # experiment, quantity, role asked, left dose, right dose, direction (SPEC sections 5 and 7)
    ("E3", "post-pre_unlearn", "similar", 3, 3, "negative"),
    ("E3", "post-pre_finetune", "similar", 3, None, "positive"),
    ("E4", "post-pre_unlearn", "target", 3, 3, "negative"),
    ("E4", "post-pre_finetune", "target", 3, None, "positive"),
    ("E4", "dose-dose", "target", 3, 0, "positive"),
    ("E5", "post-pre_unlearn", "similar", 0, 0, "negative"),
    ("E5", "post-pre_finetune", "similar", 0, None, "positive"),
)

Row = dict[str, Any]


def asked(targets: list[int]) -> list[tuple[str, int | None, int]]:
    """(role, target, sample id) of what one model state is asked."""
    found: list[tuple[str, int | None, int]] = []
    for target in targets:
        found.append(("target", target, 10 * target))
        found += [("similar", target, 10 * target + rank) for rank in range(1, SIMILAR + 1)]
    return [*found, ("other", None, 1000), ("other", None, 1001)]


def score_rows() -> list[Row]:
    draw = np.random.default_rng(0)
    rows: list[Row] = []

    def add(targets: list[int], **state: Any) -> None:
        for role, target, sample in asked(targets):
            for metric in (METRIC, "rouge1_recall"):
                rows.append(
                    {
                        "track": "text", "dataset": "d", **state, "sample_id": sample, "role": role,
                        "target_index": target, "metric": metric, "value": float(draw.random()),
                    }
                )  # fmt: skip

    every = list(range(1, TARGETS + 1))
    for model in MODELS:
        add(every, model=model, phase="pre_finetune")
        for dose in DOSES:
            for seed in SEEDS:
                trained = {"model": model, "dose": dose, "seed": seed}
                add(every, phase="pre_unlearn", **trained)
                for method in METHODS:
                    for target in every:
                        if (model, method, dose, seed, target) not in MISSING:
                            cell = {"method": method, "unlearned": target}
                            add([target], phase="post_unlearn", **trained, **cell)
    return [rows[i] for i in draw.permutation(len(rows))]


ROWS = score_rows()


def table(rows: list[Row]) -> pa.Table:
    return schemas.from_rows("scores", rows)


def mean(fits: Callable[[Row], bool], rows: list[Row]) -> tuple[float, int] | None:
    values = [r["value"] for r in rows if r["metric"] == METRIC and fits(r)]
    return (sum(values) / len(values), len(values)) if values else None


def naive_comparisons(rows: list[Row]) -> list[Row]:
    found = []
    for experiment, quantity, role, dose, baseline, expected in PAPER:
        for model in MODELS:
            for method in METHODS:
                for seed in SEEDS:
                    for target in range(1, TARGETS + 1):

                        def after(r: Row, at: int, of: tuple[Any, ...]) -> bool:
                            whose = (r["model"], r.get("method"), r.get("seed"), r.get("unlearned"))
                            mine = (r["role"], r["target_index"], r.get("dose"))
                            return (*whose, *mine) == (*of, at)

                        of = (model, method, seed, target, role, target)
                        left = mean(lambda r, of=of, d=dose: after(r, d, of), rows)
                        if quantity == "dose-dose":
                            right = mean(lambda r, of=of: after(r, 0, of), rows)
                        else:
                            phase = quantity.removeprefix("post-")
                            state = (model, phase, baseline, None if baseline is None else seed)

                            def before(r: Row, state: Any, role: str, target: int) -> bool:
                                mine = (r["model"], r["phase"], r.get("dose"), r.get("seed"))
                                return mine == state and (r["role"], r["target_index"]) == (
                                    role,
                                    target,
                                )

                            right = mean(
                                lambda r, s=state, o=role, t=target: before(r, s, o, t), rows
                            )
                        if left is None or right is None:
                            continue
                        difference = left[0] - right[0]
                        found.append(
                            {
                                "experiment": experiment, "quantity": quantity, "model": model,
                                "method": method, "seed": seed, "unlearned": target, "role": role,
                                "dose": dose, "baseline_dose": baseline, "metric": METRIC,
                                "left": left[0], "right": right[0], "difference": difference,
                                "samples": left[1], "expected": expected,
                                "agrees": difference < 0 if expected == "negative"
                                else difference > 0,
                            }
                        )  # fmt: skip
    return found


def sorted_rows(rows: list[Row]) -> list[Row]:
    names = ("experiment", "quantity", "model", "method", "seed", "unlearned")
    return sorted(rows, key=lambda r: tuple(r[n] for n in names))


def test_comparisons_are_those_of_a_loop() -> None:
    found = sorted_rows(compare(table(ROWS), METRIC).to_pylist())
    expected = sorted_rows(naive_comparisons(ROWS))
    assert len(expected) > 100
    numbers = ("left", "right", "difference")
    for left, right in zip(found, expected, strict=True):
        exact = {n: v for n, v in left.items() if n not in numbers}
        assert exact == {n: v for n, v in right.items() if n not in numbers}
        assert [left[n] for n in numbers] == pytest.approx([right[n] for n in numbers], abs=1e-12)


def test_a_missing_cell_is_missing_from_every_comparison_that_needs_it() -> None:
    found = compare(table(ROWS), METRIC).to_pylist()

    def count(model: str, method: str, quantity: str, dose: int) -> int:
        return sum(
            (r["model"], r["method"], r["quantity"], r["dose"]) == (model, method, quantity, dose)
            and r["role"] == ("similar" if dose == 0 else "target")
            for r in found
        )

    full = TARGETS * len(SEEDS)
    assert count("m1", "TV", "dose-dose", 3) == full
    assert count("m1", "GA", "dose-dose", 3) == full - 1
    assert count("m2", "TV", "dose-dose", 3) == full - 2  # one lacks the left, one the right
    assert count("m2", "TV", "post-pre_unlearn", 3) == full - 1
    assert count("m2", "TV", "post-pre_unlearn", 0) == full - 1


def test_one_dose_has_no_comparison_of_doses() -> None:
    without = [r for r in ROWS if r.get("dose") in (None, 0)]
    assert {r["experiment"] for r in compare(table(without), METRIC).to_pylist()} == {"E5"}
    with_all = [r for r in ROWS if r.get("dose") in (None, 3)]
    found = compare(table(with_all), METRIC).to_pylist()
    assert {r["experiment"] for r in found} == {"E3", "E4"}
    assert "dose-dose" not in {r["quantity"] for r in found}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [r for r in ROWS if r["phase"] != "post_unlearn"],
        [r for r in ROWS if r["metric"] != METRIC],
    ],
    ids=["no rows", "nothing unlearned", "another metric"],
)
def test_without_scores_there_are_no_comparisons(rows: list[Row]) -> None:
    found = compare(table(rows), METRIC)
    assert found.equals(schemas.empty("comparisons"))
    assert [v for v in verdicts(found, 6) if v.n] == []


def test_verdicts_count_those_that_agree() -> None:
    comparisons = compare(table(ROWS), METRIC)
    found = {
        (v.experiment.name, v.experiment.quantity, v.experiment.role, v.model, v.method): v
        for v in verdicts(comparisons, TARGETS * len(SEEDS))
    }
    assert len(found) == len(PAPER) * len(MODELS) * len(METHODS)
    for (name, quantity, role, model, method), verdict in found.items():
        rows = [
            r
            for r in naive_comparisons(ROWS)
            if (r["experiment"], r["quantity"], r["role"]) == (name, quantity, role)
            and (r["model"], r["method"]) == (model, method)
        ]
        assert (verdict.agree, verdict.n) == (sum(r["agrees"] for r in rows), len(rows))
        assert verdict.planned == TARGETS * len(SEEDS)
        expected = [np.mean([r[n] for r in rows]) for n in ("left", "right", "difference")]
        assert [verdict.left, verdict.right, verdict.estimate] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("agree", "n", "word"),
    [(2, 3, "agrees"), (1, 3, "disagrees"), (1, 2, "split"), (3, 3, "agrees"), (0, 1, "disagrees")],
)
def test_the_word_of_a_verdict_is_that_of_most_targets(agree: int, n: int, word: str) -> None:
    rows = [
        {
            "experiment": "E4", "quantity": "dose-dose", "model": "m", "method": "GA", "seed": 0,
            "unlearned": i + 1, "role": "target", "dose": 3, "baseline_dose": 0, "metric": METRIC,
            "left": 0.5, "right": 0.4, "difference": 0.1, "samples": 1, "expected": "positive",
            "agrees": i < agree,
        }
        for i in range(n)
    ]  # fmt: skip
    found = [v for v in verdicts(schemas.from_rows("comparisons", rows), 9) if v.n]
    assert [(v.word, v.agree, v.n, v.planned) for v in found] == [(word, agree, n, 9)]


def cells_table() -> pa.Table:
    done = {(r["model"], r["method"], r["dose"], r["seed"], r["unlearned"])
            for r in ROWS if r["phase"] == "post_unlearn"}  # fmt: skip
    rows = [
        {
            "track": "text", "dataset": "d", "model": model, "method": method, "dose": dose,
            "seed": seed, "unlearned": target, "cell": "c", "key": "k", "state": state,
            "attempts": 1, "diverged": state == "done" and target == 3,
        }
        for state, some in (("done", done), ("failed", MISSING))
        for model, method, dose, seed, target in sorted(some)
    ]  # fmt: skip
    return schemas.from_rows("cells", rows)


def test_damage_is_the_fall_of_other_samples() -> None:
    found = damages(table(ROWS), cells_table(), METRIC)
    assert len(found) == len({(d.model, d.method, d.dose) for d in found}) == 8
    for damage in found:
        model, method, dose = damage.model, damage.method, damage.dose
        whose = [
            r for r in ROWS if (r["model"], r.get("dose"), r["role"]) == (model, dose, "other")
        ]
        before = mean(lambda r: r["phase"] == "pre_unlearn", whose)
        after = mean(lambda r, m=method: r.get("method") == m, whose)
        assert before is not None
        assert after is not None
        assert (damage.before, damage.after) == pytest.approx((before[0], after[0]))
        gone = [c for c in MISSING if c[:3] == (model, method, dose)]
        assert damage.cells == TARGETS * len(SEEDS) - len(gone)
        assert damage.diverged == len(SEEDS) - sum(c[4] == 3 for c in gone)


def test_nothing_asked_is_no_damage() -> None:
    assert damages(table([]), cells_table(), METRIC) == []
