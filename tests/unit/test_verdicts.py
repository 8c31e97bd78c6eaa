"""The word of a verdict, from differences whose answer is plain to see; the table that shows it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from distforget import schemas
from distforget.analysis.comparisons import EXPERIMENTS
from distforget.analysis.verdicts import TOO_FEW, Verdict, verdicts
from distforget.report.terminal import print_verdicts

METRIC = "rougeL_recall"


def verdict_of(differences: list[float], expected: str = "positive", methods: int = 1) -> Verdict:
    """Of E4 (dose-dose) or, for zero, of the placebo; the first of some methods alike."""
    quantity = {"positive": "dose-dose", "zero": "post-pre_unlearn"}[expected]
    experiment = {"positive": "E4", "zero": "placebo"}[expected]
    rows = [
        {
            "attack": "none",
            "experiment": experiment, "quantity": quantity, "model": "m", "method": f"M{number}",
            "variant": "plain", "seed": 0, "unlearned": i + 1, "role": "target", "dose": 3,
            "baseline_dose": 0, "metric": METRIC, "left": 0.5 + difference, "right": 0.5,
            "difference": difference, "samples": 1, "expected": expected, "agrees": True,
        }
        for number in range(methods)
        for i, difference in enumerate(differences)
    ]  # fmt: skip
    planned = {("m", f"M{number}", "plain"): 9 for number in range(methods)}
    found = verdicts(schemas.from_rows("comparisons", rows), schemas.empty("cells"), planned, 0.1)
    assert len(found) == methods
    return found[0]


NEAR = [0.31, 0.28, 0.35, 0.30, 0.27, 0.33]


@pytest.mark.parametrize(
    ("differences", "expected", "word", "reason"),
    [
        (NEAR, "positive", "supported", ""),
        ([-d for d in NEAR], "positive", "contradicted", ""),
        ([d - 0.25 for d in NEAR], "positive", "undecided", "too small"),
        ([0.0] * 6, "positive", "undecided", "too small"),
        ([0.9, -0.4, 0.5, -0.2, 0.7, 0.1], "positive", "undecided", "too few targets"),
        (NEAR[:2], "positive", "undecided", "too few targets"),
        ([d - 0.3 for d in NEAR], "zero", "supported", ""),
        (NEAR, "zero", "contradicted", ""),
        ([-d for d in NEAR], "zero", "contradicted", ""),
        ([0.9, -0.4, 0.5, -0.2, 0.7, 0.1], "zero", "undecided", "too few targets"),
        ([0.0, 0.0], "zero", "undecided", "too few targets"),
    ],
)
def test_the_word_of_a_verdict(
    differences: list[float], expected: str, word: str, reason: str
) -> None:
    found = verdict_of(differences, expected)
    assert (found.word, found.reason) == (word, reason)
    assert (found.n, found.planned) == (len(differences), 9)


def test_many_methods_make_a_verdict_harder() -> None:
    differences = [0.3, 0.1, 0.45, 0.25, 0.2]
    alone, among = verdict_of(differences), verdict_of(differences, methods=20)
    assert (alone.word, among.word) == ("supported", "undecided")
    assert (alone.low, alone.high) == (among.low, among.high)


def rows_of(differences: list[float], metric: str, attack: str) -> list[dict[str, Any]]:
    return [
        {
            "attack": attack, "experiment": "E4", "quantity": "dose-dose", "model": "m",
            "method": "M", "variant": "plain", "seed": 0, "unlearned": i + 1, "role": "target",
            "dose": 3, "baseline_dose": 0, "metric": metric, "left": 0.5 + difference,
            "right": 0.5, "difference": difference, "samples": 1, "expected": "positive",
            "agrees": True,
        }
        for i, difference in enumerate(differences)
    ]  # fmt: skip


def test_further_scores_and_attacks_are_corrected_together_and_cost_the_first_score_nothing() -> (
    None
):
    planned, cells = {("m", "M", "plain"): 9}, schemas.empty("cells")
    first = rows_of([0.3, 0.1, 0.45, 0.25, 0.2], "fact_recall", "none")
    more = [
        row
        for attack in ("none", "quantise-4", "prune-30")
        for metric in ("fact_recall", METRIC, "answer_probability")
        if (attack, metric) != ("none", "fact_recall")
        for row in rows_of([0.3, 0.1, 0.45, 0.25, 0.2], metric, attack)
    ]
    (alone,) = verdicts(schemas.from_rows("comparisons", first), cells, planned, 0.1)
    found = verdicts(schemas.from_rows("comparisons", first + more), cells, planned, 0.1)
    assert [(v.family, v.leading) for v in found] == [(1, True), *[(8, False)] * 8]
    assert found[0] == alone
    assert found[0].word == "supported"
    assert {v.word for v in found[1:]} == {"undecided"}
    assert [(v.attack, v.metric) for v in found] == list(
        dict.fromkeys((row["attack"], row["metric"]) for row in first + more)
    )


def test_few_targets_have_an_exact_test_beside_the_interval() -> None:
    assert verdict_of(NEAR).exact_p == pytest.approx(2 / 2**6)
    assert verdict_of(NEAR[:2]).exact_p is None
    assert verdict_of([*NEAR, 0.3, 0.31]).exact_p is None


def test_the_verdict_table_fits_into_150_columns() -> None:
    long = replace(verdict_of(NEAR), model="gpt-neo-1.3b", method="NPO_GDN", variant="enhanced-low")
    some = [
        replace(long, experiment=e, dose=50, n=100, planned=100, word="undecided", reason=TOO_FEW)
        for e in EXPERIMENTS
    ]
    console = Console(width=150, record=True, file=io.StringIO())
    print_verdicts(some, METRIC, console)
    text = console.export_text()
    assert text.count("undecided: too few targets") == len(EXPERIMENTS)
    assert text.count("+0.31 [+0.28, +0.35]") == len(EXPERIMENTS)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 150
