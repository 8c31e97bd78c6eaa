"""E8: accuracy on multiple-choice questions, against loops over a hand-made table of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from distforget import schemas
from distforget.analysis.comparisons import compare
from distforget.analysis.verdicts import damages, verdicts
from distforget.metrics import CHOICE_ACCURACY
from distforget.report.figure_numbers import draw
from distforget.report.study_tables import CELL, StudyTables
from distforget.report.words import claim_of

METRIC, MARGIN, TARGETS, QUESTIONS = "rougeL_recall", 0.1, 3, 8
DOSES = (0, 3)
METHODS = (("GA", "plain"), ("GA", "enhanced"), ("GA", "placebo"), ("TV", "plain"))

Row = dict[str, Any]


def score_rows() -> list[Row]:
    draw_ = np.random.default_rng(0)
    rows: list[Row] = []

    def add(targets: range, **state: Any) -> None:
        asked = [("target", t, t, METRIC) for t in targets]
        asked += [("utility", None, 100 + i, CHOICE_ACCURACY) for i in range(QUESTIONS)]
        for role, target, sample, metric in asked:
            value = float(draw_.integers(2)) if role == "utility" else float(draw_.random())
            rows.append(
                {
                    "attack": "none",
                    "track": "text", "dataset": "d", "model": "m", **state, "sample_id": sample,
                    "role": role, "target_index": target, "metric": metric, "value": value,
                }
            )  # fmt: skip

    every = range(1, TARGETS + 1)
    add(every, phase="pre_finetune")
    for dose in DOSES:
        add(every, phase="pre_unlearn", dose=dose, seed=0)
        for method, variant in METHODS:
            for target in every:
                cell = {"method": method, "variant": variant, "unlearned": target}
                add(range(target, target + 1), phase="post_unlearn", dose=dose, seed=0, **cell)
    return rows


ROWS = score_rows()


def accuracy(**state: Any) -> float:
    """Share of right answers of a model state."""
    hits = [r["value"] for r in ROWS if r["role"] == "utility" and r.items() >= state.items()]
    assert len(hits) == QUESTIONS
    return float(np.mean(hits))


def cells() -> list[Row]:
    return [
        {
            **dict(zip(CELL, ("m", dose, method, variant, 0, target), strict=True)),
            "cell": "c", "key": "k", "track": "text", "dataset": "d", "state": "done",
            "attempts": 1, "diverged": False,
        }
        for dose in DOSES
        for method, variant in METHODS
        for target in range(1, TARGETS + 1)
    ]  # fmt: skip


def made(rows: list[Row] = ROWS) -> StudyTables:
    planned = pd.DataFrame([{name: cell[name] for name in CELL} for cell in cells()])
    return StudyTables(
        "s", METRIC, MARGIN, {"m": "hub/m"}, planned, schemas.from_rows("scores", rows),
        schemas.from_rows("cells", cells()), "2026-11-26", "Made up", chance=0.2,
    )  # fmt: skip


def test_each_cells_accuracy_is_compared_with_before_and_with_the_plain_method() -> None:
    found = compare(schemas.from_rows("scores", ROWS), [METRIC], MARGIN).to_pylist()
    mine = [r for r in found if r["experiment"] == "E8"]
    assert {r["metric"] for r in mine} == {CHOICE_ACCURACY}
    assert {r["metric"] for r in found if r["experiment"] != "E8"} == {METRIC}
    seen = set()
    for row in mine:
        of = {name: row[name] for name in ("dose", "method", "unlearned")}
        seen.add((row["quantity"], row["variant"], *of.values()))
        assert row["left"] == accuracy(phase="post_unlearn", variant=row["variant"], **of)
        if row["quantity"] == "enhanced-plain":
            expected = accuracy(phase="post_unlearn", variant="plain", **of)
        else:
            expected = accuracy(phase="pre_unlearn", dose=row["dose"])
        assert row["right"] == expected
        assert row["agrees"] == (abs(row["left"] - expected) <= 0.03)
        assert row["samples"] == QUESTIONS
    targets = range(1, TARGETS + 1)
    assert seen == {("enhanced-plain", "enhanced", d, "GA", t) for d in DOSES for t in targets} | {
        ("post-pre_unlearn", "plain", d, m, t) for d in DOSES for m in ("GA", "TV") for t in targets
    }


def test_verdicts_and_damage_say_which_score_it_is() -> None:
    scores, done = schemas.from_rows("scores", ROWS), schemas.from_rows("cells", cells())
    planned = {("m", method, variant): TARGETS for method, variant in METHODS}
    found = verdicts(compare(scores, [METRIC], MARGIN), done, planned, MARGIN)
    mine = [v for v in found if v.experiment.name == "E8"]
    assert {(claim_of(v.experiment), v.metric) for v in mine} == {
        ("E8 utility: enhanced-plain about 0", CHOICE_ACCURACY),
        ("E8 utility: post-pre_unlearn about 0", CHOICE_ACCURACY),
    }
    assert len(mine) == len(DOSES) * 3
    assert {v.margin for v in mine} == {0.03}
    assert {v.margin for v in found if v not in mine} == {MARGIN}
    assert all(-1 <= v.low <= v.estimate <= v.high <= 1 for v in mine)
    lost = [d for d in damages(scores, done) if d.role == "utility"]
    assert len(lost) == len(DOSES) * len(METHODS)
    for damage in lost:
        assert damage.before == {
            CHOICE_ACCURACY: pytest.approx(accuracy(phase="pre_unlearn", dose=damage.dose))
        }
        of = {"dose": damage.dose, "method": damage.method, "variant": damage.variant}
        after = [accuracy(unlearned=t, **of) for t in range(1, TARGETS + 1)]
        assert damage.after == {CHOICE_ACCURACY: pytest.approx(np.mean(after))}


def test_figure_18_holds_each_cells_accuracy_and_the_levels_before() -> None:
    (drawn,) = draw(made(), "18")
    assert drawn.name == "figure-18-m"
    assert drawn.figure is not None
    (axes,) = drawn.figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["GA", "GA+enhanced", "TV"]
    for y, (method, variant) in enumerate(m for m in METHODS if m[1] != "placebo"):
        points = np.asarray(axes.collections[y].get_offsets())
        of = {"method": method, "variant": variant, "dose": DOSES[-1]}
        assert points.tolist() == [[accuracy(unlearned=t, **of), y] for t in range(1, TARGETS + 1)]
    levels = sorted(float(np.ravel(line.get_xdata())[0]) for line in axes.lines[:2])
    before = [accuracy(phase="pre_finetune"), accuracy(phase="pre_unlearn", dose=DOSES[-1])]
    assert levels == pytest.approx(sorted(before))
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).x1 == pytest.approx(0.2)
    (caption,) = [t.get_text() for t in drawn.figure.texts if "questions" in t.get_text()]
    assert "8 multiple-choice questions" in " ".join(caption.split())
    assert "KM" not in caption


def test_a_method_without_results_says_so_within_figure_18() -> None:
    (drawn,) = draw(made([r for r in ROWS if r.get("method") != "TV"]), "18")
    assert drawn.figure is not None
    drawn.figure.canvas.draw()
    (axes,) = drawn.figure.axes
    (said,) = [text for text in axes.texts if text.get_text() == "no results"]
    x, y = said.get_window_extent().get_points().mean(0)
    assert axes.bbox.contains(x, y)
    assert axes.transData.inverted().transform((x, y))[1] == pytest.approx(2, abs=0.1)


def test_a_study_without_questions_has_no_figure_18() -> None:
    (drawn,) = draw(made([r for r in ROWS if r["role"] != "utility"]), "18")
    assert drawn.figure is None
    assert drawn.lacking == "the study asks m no questions of utility"
