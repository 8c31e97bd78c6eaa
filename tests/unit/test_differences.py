"""Two studies held against each other: the join, the interval and the words, by a naive count."""

from __future__ import annotations

import statistics
from typing import Any

import pyarrow as pa
import pytest

from distforget import schemas
from distforget.analysis.differences import differences, overlap, unpaired
from distforget.analysis.settings import settings
from distforget.analysis.states import means
from distforget.loading import load_study
from distforget.plan import make_plan
from distforget.study import Study

METRIC = "rougeL_recall"


def row(target: int, sample: int, value: float, **changes: Any) -> dict[str, Any]:
    """A score after unlearning."""
    role = "other" if sample >= 100 else "target" if sample % 10 == 0 else "similar"
    return {
        "attack": "none",
        "track": "text", "dataset": "d", "model": "m", "phase": "post_unlearn", "dose": 3,
        "seed": 0, "method": "GA", "variant": "plain", "unlearned": target, "sample_id": sample,
        "role": role, "target_index": None if role == "other" else target, "metric": METRIC,
        "value": value, **changes,
    }  # fmt: skip


BEFORE = {"phase": "pre_unlearn", "method": None, "variant": None, "unlearned": None}


def study(shift: float = 0.0, targets: int = 6, seeds: int = 2) -> list[dict[str, Any]]:
    """Scores whose difference from the unshifted ones is known: `shift` and a little more."""
    rows = []
    for target in range(1, targets + 1):
        family = [target * 10 + i for i in range(3)]
        for seed in range(seeds):
            for sample in (*family, 100, 101):
                value = 0.5 + (shift + 0.001 * (sample % 7) * seed if shift else 0)
                rows.append(row(target, sample, value, seed=seed))
            rows += [row(target, sample, 0.9, seed=seed, **BEFORE) for sample in family]
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return schemas.from_rows("scores", rows)


def naive(a: list[dict[str, Any]], b: list[dict[str, Any]], role: str) -> tuple[float, float]:
    """Means of both sides after unlearning, by loops: over samples, seeds, then targets."""

    def mean(rows: list[dict[str, Any]], keys: set[tuple[int, int, int]]) -> float:
        found: dict[int, dict[int, list[float]]] = {}
        for r in rows:
            if (r["unlearned"], r["seed"], r["sample_id"]) in keys and r["role"] == role:
                found.setdefault(r["unlearned"], {}).setdefault(r["seed"], []).append(r["value"])
        of_targets = [
            statistics.mean(statistics.mean(values) for values in seeds.values())
            for seeds in found.values()
        ]
        return statistics.mean(of_targets)

    keys = [
        {(r["unlearned"], r["seed"], r["sample_id"]) for r in rows if r["phase"] == "post_unlearn"}
        for rows in (a, b)
    ]
    shared = keys[0] & keys[1]
    return mean(a, shared), mean(b, shared)


def test_means_are_those_of_a_naive_join() -> None:
    a, b = study(), study(0.2)
    b = [r for r in b if not (r["sample_id"] == 11 and r["seed"] == 1) and r["unlearned"] != 4]
    found = differences(table(a), table(b), METRIC, 0.1)
    after = found[found["phase"] == "post_unlearn"].set_index("role")
    for role in ("target", "similar", "other"):
        left, right = naive(a, b, role)
        line = after.loc[role]
        assert line["a"] == pytest.approx(left, abs=1e-12)
        assert line["b"] == pytest.approx(right, abs=1e-12)
        assert line["difference"] == pytest.approx(right - left, abs=1e-12)
        assert line["low"] <= line["difference"] <= line["high"]
        assert (line["targets"], line["word"]) == (5, "B higher")
    assert after.loc["similar", "samples"] == 5 * 2 * 2 - 1
    before = found[found["phase"] == "pre_unlearn"]
    assert set(before["word"]) == {"equal"}
    assert found["phase"].tolist() == sorted(found["phase"], reverse=True)


@pytest.mark.parametrize(
    ("shift", "margin", "targets", "word", "reason"),
    [
        (0.3, 0.1, 6, "B higher", ""),
        (-0.3, 0.1, 6, "B lower", ""),
        (0.01, 0.1, 6, "about equal", ""),
        (0.3, 0.1, 2, "undecided", "too few targets"),
    ],
)
def test_the_word_of_a_difference(
    shift: float, margin: float, targets: int, word: str, reason: str
) -> None:
    found = differences(table(study(targets=targets)), table(study(shift, targets)), METRIC, margin)
    line = found[(found["phase"] == "post_unlearn") & (found["role"] == "similar")].iloc[0]
    assert (line["word"], line["reason"]) == (word, reason)


def test_one_score_in_a_thousand_is_seen() -> None:
    a, b = study(), study()
    b[7] = {**b[7], "value": b[7]["value"] + 1e-12}
    words = differences(table(a), table(b), METRIC, 0.1)["word"].tolist()
    assert words.count("equal") == len(words) - 1


def test_no_number_is_equal_to_itself_alone() -> None:
    a = [{**r, "value": float("nan")} for r in study()]
    found = differences(table(a), table(a), METRIC, 0.1)
    assert set(found["word"]) == {"equal"}
    assert "equal" not in set(differences(table(a), table(study()), METRIC, 0.1)["word"])


def test_nothing_in_common_is_no_line() -> None:
    other = [{**r, "model": "another"} for r in study()]
    assert differences(table(study()), table(other), METRIC, 0.1).empty


def test_samples_of_one_side_alone_are_counted_in_shared_states() -> None:
    a = study()
    b = [r for r in a if r["sample_id"] != 101 and r["unlearned"] != 1]
    of_shared = [r for r in a if r["sample_id"] == 101 and r["unlearned"] != 1]
    assert unpaired(table(a), table(b), METRIC) == (len(of_shared), 0)
    assert unpaired(table(b), table(a), METRIC) == (0, len(of_shared))


def test_cells_of_one_side_alone_are_named() -> None:
    def cells(done: str, failed: str) -> pa.Table:
        states = [(name, "done") for name in done] + [(name, "failed") for name in failed]
        return pa.table({"cell": [n for n, _ in states], "state": [s for _, s in states]})

    found = overlap(list("abcd"), cells("abc", "d"), list("bcde"), cells("bde", "c"))
    assert (found.both, found.only_a, found.only_b) == (("b",), ("a", "c"), ("d", "e"))
    assert found.unfinished == ("c", "d")


def test_a_standard_error_is_that_over_targets() -> None:
    rows = [row(t, t * 10, value) for t, value in enumerate((0.2, 0.5, 0.9), 1)]
    (line,) = means(table(rows)).to_dict("records")
    assert line["mean"] == pytest.approx(1.6 / 3)
    assert line["stderr"] == pytest.approx(statistics.stdev([0.2, 0.5, 0.9]) / 3**0.5)
    assert (line["targets"], line["samples"]) == (3, 3)


def changed(**changes: Any) -> Study:
    content = load_study("demo-image").model_dump()
    return Study.model_validate({**content, **changes})


def test_settings_that_differ_have_path_and_both_values() -> None:
    plan = make_plan(load_study("demo-image"))
    assert settings(plan, make_plan(changed(name="another"))) == []
    methods = [
        {**m, "settings": {"steps": 7}} if m["name"] == "relabel_GDN" and not m["enhanced"] else m
        for m in load_study("demo-image").model_dump()["methods"]
    ]
    other = make_plan(changed(methods=methods, fit={"steps": 900}))
    found = {s.field: s for s in settings(plan, other)}
    assert set(found) == {"config.steps", "steps"}
    cells, tuned = found["config.steps"], found["steps"]
    assert (cells.left, cells.right, cells.stages, cells.methods, cells.steps) == (
        20, 7, ("cell",), ("relabel_GDN",), 2 * 3,
    )  # fmt: skip
    assert (tuned.left, tuned.right, tuned.stages, tuned.methods) == (1500, 900, ("finetune",), ())
    assert tuned.steps == len(plan.finetunes)
