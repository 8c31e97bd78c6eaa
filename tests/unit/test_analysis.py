"""Comparisons and verdicts on a hand-made table of scores, against loops over its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distforget import schemas
from distforget.analysis.comparisons import compare
from distforget.analysis.doses import dose_response, slopes
from distforget.analysis.verdicts import verdicts

METRIC = "rougeL_recall"
MARGIN = 0.2
MODELS, DOSES, SEEDS, TARGETS, SIMILAR = ("m1", "m2"), (0, 3), (0, 1), 3, 3
METHODS = (
    ("GA", "plain"), ("GA", "enhanced"), ("GA", "enhanced-low"), ("GA", "placebo"),
    ("TV", "plain"), ("TV", "slow"), ("retrain", "enhanced-5"), ("retrain", "plain"),
)  # fmt: skip
MISSING = {
    ("m1", "GA", "plain", 3, 0, 2), ("m2", "TV", "plain", 0, 1, 1), ("m2", "TV", "plain", 3, 1, 3),
    ("m1", "retrain", "plain", 3, 0, 1), ("m2", "GA", "placebo", 0, 1, 2),
}  # fmt: skip

PLAIN = (("GA", "plain"), ("TV", "plain"), ("TV", "slow"), ("retrain", "plain"))
UNLEARNED = PLAIN[:3]
ENHANCED, PLACEBO = (("GA", "enhanced"), ("retrain", "enhanced-5")), (("GA", "placebo"),)
LOW = (("GA", "enhanced-low"),)
EXPECTED = (
    # experiment, quantity, role asked, left doses, right dose, expected, methods
    # (SPEC sections 5 and 7; retrained and placebo: section 8)
    ("E3", "post-pre_unlearn", "similar", (3,), "same", "negative", PLAIN),
    ("E3", "post-pre_finetune", "similar", (3,), None, "positive", PLAIN),
    ("alone", "post-pre_unlearn", "target", (0,), "same", "negative", PLAIN),
    ("E4", "post-pre_unlearn", "target", (3,), "same", "negative", PLAIN),
    ("E4", "post-pre_finetune", "target", (3,), None, "positive", PLAIN),
    ("E4", "dose-dose", "target", (3,), 0, "positive", PLAIN),
    ("E5", "post-pre_unlearn", "similar", (0,), "same", "negative", PLAIN),
    ("E5", "post-pre_finetune", "similar", (0,), None, "positive", PLAIN),
    ("E7", "post-pre_finetune", "similar", (3,), None, "zero", ENHANCED),
    ("E7", "post-pre_finetune", "similar", (3,), None, "positive", LOW),
    ("E7", "enhanced-plain", "similar", (3,), "same", "negative", ENHANCED),
    ("retrained", "post-retrained", "target", DOSES, "same", "zero", UNLEARNED),
    ("retrained", "post-retrained", "similar", DOSES, "same", "zero", UNLEARNED),
    ("placebo", "post-pre_unlearn", "target", DOSES, "same", "zero", PLACEBO),
    ("placebo", "post-placebo", "target", DOSES, "same", "negative", PLAIN[:1]),
    ("placebo", "post-placebo", "similar", DOSES, "same", "negative", PLAIN[:1]),
)
COMPARED_WITH = {
    "post-retrained": ("retrain", "plain"),
    "post-placebo": ("GA", "placebo"),
}

Row = dict[str, Any]


def asked(targets: list[int]) -> list[tuple[str, int | None, int]]:
    """(role, target, sample id) of what one model state is asked."""
    found: list[tuple[str, int | None, int]] = []
    for target in targets:
        found.append(("target", target, 10 * target))
        found += [("similar", target, 10 * target + rank) for rank in range(1, SIMILAR + 1)]
        found.append(("neighbour", target, 500 + target))
    return [*found, ("other", None, 1000), ("other", None, 1001)]


def score_rows() -> list[Row]:
    draw = np.random.default_rng(0)
    rows: list[Row] = []

    def add(targets: list[int], **state: Any) -> None:
        for role, target, sample in asked(targets):
            for metric in (METRIC, "rouge1_recall"):
                rows.append(
                    {
                        "attack": "none",
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
                for method, variant in METHODS:
                    for target in every:
                        if (model, method, variant, dose, seed, target) not in MISSING:
                            cell = {"method": method, "variant": variant, "unlearned": target}
                            add([target], phase="post_unlearn", **trained, **cell)
    return [rows[i] for i in draw.permutation(len(rows))]


ROWS = score_rows()
PLANNED = {(m, *method): TARGETS * len(SEEDS) for m in MODELS for method in METHODS}


def table(rows: list[Row]) -> pa.Table:
    return schemas.from_rows("scores", rows)


def mean(rows: list[Row], **wanted: Any) -> tuple[float, int] | None:
    values = [
        r["value"]
        for r in rows
        if r["metric"] == METRIC and all(r.get(n) == v for n, v in wanted.items())
    ]
    return (sum(values) / len(values), len(values)) if values else None


def naive_comparisons(rows: list[Row]) -> list[Row]:
    return [
        row
        for experiment in EXPECTED
        for model in MODELS
        for dose in experiment[3]
        for method in experiment[6]
        for seed in SEEDS
        for target in range(1, TARGETS + 1)
        if (row := naive_comparison(rows, experiment, model, dose, method, seed, target))
    ]


def naive_comparison(
    rows: list[Row], experiment: Any, model: str, dose: int, of: Any, seed: int, target: int
) -> Row | None:
    name, quantity, role, _, baseline, expected, _ = experiment
    baseline = dose if baseline == "same" else baseline
    asked = {"model": model, "role": role, "target_index": target}
    cell = {"method": of[0], "variant": of[1], "seed": seed, "unlearned": target}
    left = mean(rows, **asked, **cell, dose=dose)
    phase = quantity.removeprefix("post-")
    if phase in ("pre_unlearn", "pre_finetune"):
        trained = {} if baseline is None else {"dose": baseline, "seed": seed}
        right = mean(rows, **asked, **trained, phase=phase)
    else:
        plain = (of[0], "plain") if quantity == "enhanced-plain" else of
        method, variant = COMPARED_WITH.get(quantity, plain)
        right = mean(rows, **asked, **{**cell, "method": method, "variant": variant}, dose=baseline)
    if left is None or right is None:
        return None
    difference = left[0] - right[0]
    agrees = {
        "negative": difference < 0, "positive": difference > 0, "zero": abs(difference) <= MARGIN,
    }  # fmt: skip
    return {
        "attack": "none", "experiment": name, "quantity": quantity, "model": model, "method": of[0],
        "variant": of[1], "seed": seed, "unlearned": target, "role": role, "dose": dose,
        "baseline_dose": baseline, "metric": METRIC, "left": left[0], "right": right[0],
        "difference": difference, "samples": left[1], "expected": expected,
        "agrees": agrees[expected],
    }  # fmt: skip


def sorted_rows(rows: list[Row]) -> list[Row]:
    names = (
        "experiment", "quantity", "role", "model", "dose", "method", "variant", "seed", "unlearned",
    )  # fmt: skip
    return sorted(rows, key=lambda r: tuple(r[n] for n in names))


def test_comparisons_are_those_of_a_loop() -> None:
    found = sorted_rows(compare(table(ROWS), [METRIC], MARGIN).to_pylist())
    expected = sorted_rows(naive_comparisons(ROWS))
    assert len(expected) > 100
    numbers = ("left", "right", "difference")
    for left, right in zip(found, expected, strict=True):
        exact = {n: v for n, v in left.items() if n not in numbers}
        assert exact == {n: v for n, v in right.items() if n not in numbers}
        assert [left[n] for n in numbers] == pytest.approx([right[n] for n in numbers], abs=1e-12)


def test_a_missing_cell_is_missing_from_every_comparison_that_needs_it() -> None:
    found = compare(table(ROWS), [METRIC], MARGIN).to_pylist()

    def count(model: str, method: str, quantity: str, dose: int) -> int:
        return sum(
            (r["model"], r["method"], r["quantity"], r["dose"]) == (model, method, quantity, dose)
            and r["variant"] == "plain"
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
    found = compare(table(without), [METRIC], MARGIN).to_pylist()
    assert {r["experiment"] for r in found} == {"alone", "E5", "retrained", "placebo"}
    with_all = [r for r in ROWS if r.get("dose") in (None, 3)]
    found = compare(table(with_all), [METRIC], MARGIN).to_pylist()
    assert {r["experiment"] for r in found} == {"E3", "E4", "E7", "retrained", "placebo"}
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
    found = compare(table(rows), [METRIC], MARGIN)
    assert found.equals(schemas.empty("comparisons"))
    assert verdicts(found, cells_table(), PLANNED, MARGIN) == []


def naive_states(
    rows: list[Row], model: str, dose: int, role: str, targets: Sequence[int]
) -> dict[str, list[float]]:
    """Scores of each state, a number a target, seed and method."""
    found: dict[str, list[float]] = {}
    for target in targets:
        asked = {"model": model, "role": role, "target_index": target}
        floor = mean(rows, **asked, phase="pre_finetune")
        assert floor is not None
        found.setdefault("before fine-tuning", []).append(floor[0])
        for seed in SEEDS:
            trained = {**asked, "dose": dose, "seed": seed}
            ceiling = mean(rows, **trained, phase="pre_unlearn")
            assert ceiling is not None
            found.setdefault("before unlearning", []).append(ceiling[0])
            for method, variant in METHODS:
                after = mean(rows, **trained, method=method, variant=variant, unlearned=target)
                state = {"plain": method, "placebo": "placebo"}.get(variant, f"{method}+{variant}")
                if after is not None:
                    found.setdefault(state, []).append(after[0])
    return found


@pytest.mark.parametrize("role", ["target", "similar"])
def test_dose_response_is_that_of_a_loop(role: str) -> None:
    found = dose_response(table(ROWS), METRIC, role)
    expected = {
        (model, state, dose): values
        for model in MODELS
        for dose in DOSES
        for state, values in naive_states(ROWS, model, dose, role, range(1, TARGETS + 1)).items()
    }
    assert len(expected) == len(MODELS) * len(DOSES) * (2 + len(METHODS))
    assert {(row.model, row.state, row.dose) for row in found.itertuples()} == set(expected)
    for row in found.itertuples():
        values = expected[(row.model, row.state, row.dose)]
        assert row.n == len(values)
        numbers = [sum(values) / len(values), min(values), max(values)]
        assert [row.mean, row.low, row.high] == pytest.approx(numbers, abs=1e-12)


def test_verdicts_count_those_that_agree() -> None:
    comparisons = compare(table(ROWS), [METRIC], MARGIN)
    expected = naive_comparisons(ROWS)
    found = verdicts(comparisons, cells_table(), PLANNED, MARGIN)
    assert len(found) == sum(len(e[3]) * len(e[6]) for e in EXPECTED) * len(MODELS)
    for verdict in found:
        of = verdict.experiment
        whose = {
            "experiment": of.name, "quantity": of.quantity, "role": of.role, "dose": verdict.dose,
            "model": verdict.model, "method": verdict.method, "variant": verdict.variant,
        }  # fmt: skip
        rows = [r for r in expected if all(r[n] == v for n, v in whose.items())]
        targets: dict[int, list[Row]] = {}
        for row in rows:
            targets.setdefault(row["unlearned"], []).append(row)
        means = [
            np.mean([np.mean([r[n] for r in some]) for some in targets.values()])
            for n in ("left", "right", "difference")
        ]
        assert [verdict.left, verdict.right, verdict.estimate] == pytest.approx(means)
        assert verdict.low <= verdict.estimate <= verdict.high
        seeds = [[r["difference"] for r in rows if r["seed"] == seed] for seed in SEEDS]
        assert verdict.seed_means == pytest.approx([np.mean(some) for some in seeds])
        assert (verdict.targets, verdict.n) == (len(targets), len(rows))
        assert verdict.planned == TARGETS * len(SEEDS)
        assert verdict.diverged == sum(r["unlearned"] == 3 for r in rows)
        each = [float(np.mean([r["difference"] for r in some])) for some in targets.values()]
        agrees = {"negative": lambda d: d < 0, "positive": lambda d: d > 0}.get(
            of.expected, lambda d: abs(d) <= MARGIN
        )
        assert verdict.agree == sum(map(agrees, each))


@pytest.mark.parametrize("role", ["target", "similar"])
def test_slopes_are_those_of_a_loop(role: str) -> None:
    found = slopes(table(ROWS), METRIC, role)
    scores = naive_doses(role)
    states = {state for _, state, _ in scores} - {"before fine-tuning", "placebo"}
    assert {(r.model, r.state) for r in found.itertuples()} == set(product(MODELS, states))
    for row in found.itertuples():
        low, high = (scores[row.model, row.state, dose] for dose in DOSES)
        both = sorted(low.keys() & high.keys())
        # from dose 0 to 3 there are two doublings of 1 + dose
        rises = [(np.mean(high[t]) - np.mean(low[t])) / 2 for t in both]
        assert row.targets == len(both)
        assert row.slope == pytest.approx(np.mean(rises))
        if len(both) > 2:  # Student's t with 2 degrees of freedom
            half = 4.302653 * np.std(rises, ddof=1) / math.sqrt(3)
            ends = np.clip([row.slope - half, row.slope + half], -0.5, 0.5)  # 1 in two doublings
            assert [row.lower, row.upper] == pytest.approx(ends, rel=1e-5)
        else:
            assert math.isnan(row.lower)


def test_a_slope_is_no_steeper_than_scores_allow() -> None:
    doses = [0, 1, 2, 5, 10]
    made = [
        {**ROWS[0], "phase": "post_unlearn", "role": "target", "variant": "plain", "dose": dose,
         "unlearned": target, "target_index": target, "value": float(target == 3 and dose > 4)}
        for target, dose in product((1, 2, 3), doses)
    ]  # fmt: skip
    (row,) = slopes(table(made), METRIC, "target").itertuples()
    fits = [np.polyfit(np.log2(np.add(1, doses)), y, 1)[0] for y in product((0, 1), repeat=5)]
    assert row.upper == pytest.approx(max(fits))
    assert slopes(table(made[:1]), METRIC, "target").empty


def naive_doses(role: str) -> dict[tuple[str, str, int], dict[int, list[float]]]:
    """Scores over seeds of each target, by model, state and dose."""
    found: dict[tuple[str, str, int], dict[int, list[float]]] = {}
    for model, dose, target in product(MODELS, DOSES, range(1, TARGETS + 1)):
        of_target = [r for r in ROWS if r["target_index"] == target]
        for state, values in naive_states(of_target, model, dose, role, [target]).items():
            found.setdefault((model, state, dose), {})[target] = values
    return found


def cells_table() -> pa.Table:
    names = ("model", "method", "variant", "dose", "seed", "unlearned")
    done = {tuple(r[n] for n in names) for r in ROWS if r["phase"] == "post_unlearn"}
    rows = [
        {
            "track": "text", "dataset": "d", **dict(zip(names, cell, strict=True)), "cell": "c",
            "key": "k", "state": state, "attempts": 1,
            "diverged": state == "done" and cell[-1] == 3,
        }
        for state, some in (("done", done), ("failed", MISSING))
        for cell in sorted(some)
    ]  # fmt: skip
    return schemas.from_rows("cells", rows)


def test_what_is_left_of_an_image_is_compared_with_nothing() -> None:
    rows = [
        {**row, "track": "image", "metric": "ssim_contrast"}
        for row in ROWS
        if row["metric"] == METRIC
    ]
    # Four plain methods at dose 0, two enhanced ones at dose 3; three targets, two seeds.
    for metric, count in (("ssim_contrast", (4 + 2) * 3 * 2), ("ssim", 0)):
        scores = table([{**row, "metric": metric} for row in rows if row["model"] == "m1"])
        found = compare(scores, [metric], MARGIN).to_pylist()
        left = [r for r in found if r["quantity"] == "post-null"]
        assert len(left) == count, metric
        assert all(r["right"] == 0 and r["difference"] == r["left"] for r in left)
        assert {(r["experiment"], r["role"], r["expected"]) for r in left} <= {
            ("E2", "target", "zero"), ("E6", "target", "zero")
        }  # fmt: skip


def test_controls_of_images_are_the_others_before_and_after() -> None:
    rows = [{**row, "track": "image"} for row in ROWS if row["model"] == "m1"]
    found = [r for r in compare(table(rows), [METRIC], MARGIN).to_pylist() if r["role"] == "other"]
    missing = sum(c[0] == "m1" and (c[1], c[2]) in PLAIN for c in MISSING)
    assert len(found) == len(PLAIN) * len(DOSES) * len(SEEDS) * TARGETS - missing
    for row in found:
        state = {"role": "other", **{n: row[n] for n in ("dose", "seed")}}
        cell = {n: row[n] for n in ("method", "variant", "unlearned")}
        before, after = mean(rows, phase="pre_unlearn", **state), mean(rows, **state, **cell)
        assert (row["experiment"], row["expected"], row["quantity"]) == (
            "E2", "zero", "post-pre_unlearn"
        )  # fmt: skip
        assert before
        assert after
        assert (row["left"], row["right"]) == pytest.approx((after[0], before[0]), abs=1e-12)
