"""The leaderboard on made-up scores: means by a plain loop, the front by looking at all pairs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import made_up
from distforget import schemas
from distforget.analysis.leaderboard import (
    FORGET_QUALITY,
    PRIVACY_LEAK,
    Line,
    leaderboards,
    model_utility,
)
from distforget.plan import make_plan
from distforget.report.figure_numbers import draw
from distforget.report.leaderboard import FRONT, name_of, shown
from distforget.report.page.boards import boards
from distforget.report.study_tables import read
from distforget.store import Store
from distforget.study import Study
from tests.unit.test_page import study

TARGETS, METRIC = range(1, 6), "fact_recall"
KNOWS = {"weak": (0.9, 0.95), "strong": (0.1, 0.4), "better": (0.1, 0.7), "retrain": (0.0, 0.9)}
"""Score of targets, and of what should stay, after each method."""


def row(value: float, role: str, target: int | None, **more: Any) -> dict[str, Any]:
    return {
        "track": "text", "dataset": "d", "model": "m", "phase": "post_unlearn", "dose": 2,
        "seed": 0, "method": None, "variant": None, "unlearned": None, "attack": "none",
        "sample_id": 1, "role": role, "target_index": target, "metric": METRIC, "value": value,
        **more,
    }  # fmt: skip


def made_scores() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    rows = []
    for (method, (forgets, keeps)), target in itertools.product(KNOWS.items(), TARGETS):
        own = {"method": method, "variant": "plain", "unlearned": target}
        noise = float(draw.uniform(0, 0.05))
        rows += [
            row(forgets + noise, "target", target, **own),
            row(0.3, "target", target % 5 + 1, **own),
            row(forgets + 0.1, "similar", target, **own),
            row(keeps, "neighbour", target, **own),
            row(keeps, "other", None, **own),
            row(min(1, forgets + 0.3), "target", target, **own, attack="quantise-4"),
            row(3 * noise + forgets, "target", target, **own, metric="truth_ratio"),
            row(noise - forgets, "target", target, **own, metric="min_k_plus"),
        ]
    for phase, value in (("pre_unlearn", 0.95), ("pre_finetune", 0.05)):
        state = {"phase": phase, **({} if phase == "pre_unlearn" else {"dose": None, "seed": None})}
        rows += [row(value, "target", target, **state) for target in TARGETS]
        rows += [row(value, "other", None, **state)]
    return rows


def lines(rows: list[dict[str, Any]]) -> dict[str, Line]:
    cells = schemas.empty("cells")
    (board,) = leaderboards(schemas.from_rows("scores", rows), cells, METRIC)
    assert (board.model, board.dose) == ("m", 2)
    return {name_of(line): line for line in board.lines}


def test_each_number_is_that_of_a_plain_loop() -> None:
    rows = made_scores()
    found = lines(rows)
    assert list(found)[-3:] == ["retrain", "before unlearning", "before fine-tuning"]
    for method in KNOWS:
        mine = [r for r in rows if r["method"] == method]
        own = [r for r in mine if r["metric"] == METRIC and r["target_index"] == r["unlearned"]]

        def mean(role: str, attack: str = "none", own: list[Any] = own) -> float:
            return float(
                np.mean([r["value"] for r in own if (r["role"], r["attack"]) == (role, attack)])
            )

        values = found[method].values
        assert values["x"].mean == pytest.approx(mean("target"))
        assert values["S(x)"].mean == pytest.approx(mean("similar"))
        assert values["neighbours"].mean == pytest.approx(mean("neighbour"))
        assert values["others"].mean == pytest.approx(KNOWS[method][1])
        assert values["quantise-4"].mean == pytest.approx(mean("target", "quantise-4"))
        assert values["x"].low <= values["x"].mean <= values["x"].high
        assert "utility" not in values
        assert found[method].targets == 5
    assert found["before unlearning"].values["x"].mean == pytest.approx(0.95)
    assert found["before fine-tuning"].values["others"].mean == pytest.approx(0.05)
    assert "seconds" not in found["weak"].values


def test_distance_and_forget_quality_are_from_the_retrained_models() -> None:
    rows = made_scores()
    found = lines(rows)

    def of(method: str, metric: str) -> list[float]:
        return [
            r["value"]
            for r in rows
            if (r["method"], r["metric"], r["role"], r["attack"])
            == (method, metric, "target", "none")
            and r["target_index"] == r["unlearned"]
        ]

    apart = np.abs(np.subtract(of("strong", METRIC), of("retrain", METRIC))).mean()
    assert found["strong"].values["distance"].mean == pytest.approx(apart)
    assert found["retrain"].values["distance"].mean == 0
    expected = stats.ks_2samp(of("strong", "truth_ratio"), of("retrain", "truth_ratio")).pvalue
    assert found["strong"].values[FORGET_QUALITY].mean == pytest.approx(expected)
    own, never = of("strong", "min_k_plus"), of("retrain", "min_k_plus")
    wins = np.mean([(a > b) + 0.5 * (a == b) for a in own for b in never])
    assert found["strong"].values[PRIVACY_LEAK].mean == pytest.approx(2 * abs(wins - 0.5))
    without = lines([r for r in rows if r["method"] != "retrain"])
    assert not {"distance", FORGET_QUALITY, PRIVACY_LEAK} & without["strong"].values.keys()
    few = lines([r for r in rows if r["method"] != "retrain" or r["unlearned"] < 3])
    assert FORGET_QUALITY not in few["strong"].values
    assert "distance" in few["strong"].values


def test_the_front_is_what_nothing_beats() -> None:
    found = lines(made_scores())
    assert {name for name, line in found.items() if line.on_front} == {"weak", "better"}


def test_what_lacks_a_column_is_on_no_front() -> None:
    rows = [r for r in made_scores() if not (r["method"] == "better" and r["role"] == "neighbour")]
    front = {name for name, line in lines(rows).items() if line.on_front}
    assert front == {"weak", "strong"}


def test_a_seed_and_a_dose_more_make_boards_and_values_of_their_own() -> None:
    rows = made_scores()
    more = [{**r, "dose": 0} for r in rows if r["dose"] == 2]
    scores = schemas.from_rows("scores", rows + more)
    found = leaderboards(scores, schemas.empty("cells"), METRIC)
    assert [board.dose for board in found] == [2, 0]


def test_model_utility_is_the_harmonic_mean_of_six_means() -> None:
    values = {
        ("answer_probability", "other"): (0.5, 0.7), ("rougeL_recall", "other"): (0.8, 0.8),
        ("truth_ratio", "other"): (0.2, 3.0), ("answer_probability", "neighbour"): (0.9,),
        ("rougeL_recall", "neighbour"): (0.4,), ("truth_ratio", "neighbour"): (0.5,),
    }  # fmt: skip
    rows = [
        row(value, role, None, metric=metric)
        for (metric, role), some in values.items()
        for value in some
    ]
    means = [0.6, 0.8, (0.8 + 0) / 2, 0.9, 0.4, 0.5]
    expected = len(means) / sum(1 / mean for mean in means)
    assert model_utility(pd.DataFrame(rows)) == pytest.approx(expected)
    assert model_utility(pd.DataFrame([*rows, row(0.0, "target", 1)])) == pytest.approx(expected)
    gone = [{**r, "value": 9.0} if r["metric"] == "truth_ratio" else r for r in rows]
    assert model_utility(pd.DataFrame(gone)) == 0
    assert math.isnan(
        model_utility(pd.DataFrame([r for r in rows if r["metric"] != "truth_ratio"]))
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Store]:
    plan = make_plan(Study.model_validate(study(methods=["GA_KLN", "NPO_GDN", "retrain"])))
    store = Store(tmp_path_factory.mktemp("store"))
    made_up.fill(plan, store)
    return plan, store


def test_terminal_page_and_figure_show_the_same(made: tuple[Any, Store], tmp_path: Path) -> None:
    tables = read(*made)
    board = leaderboards(tables.every_score, tables.cells, tables.metrics[0])[0]
    words, (data, *_) = shown(board), boards(tables)
    assert len(words.rows) == len(data["lines"]) == len(board.lines)
    for said, line in zip(words.rows, data["lines"], strict=True):
        assert said[0].removeprefix(f"{FRONT} ") == line["name"]
        assert said[0].startswith(FRONT) == line["front"]
        mean, low, high = line["values"]["x"]
        assert float(said[1]) == pytest.approx(mean, abs=6e-3)
        assert low <= mean <= high
    (drawn,) = draw(tables, "leaderboard")
    assert drawn.figure is not None
    titles = [axes.get_title() for axes in drawn.figure.axes]
    assert [title.split()[0] for title in titles] == [c.name.split()[0] for c in board.columns]


def test_a_value_without_interval_is_a_mean() -> None:
    rows = [r for r in made_scores() if r["unlearned"] in (None, 1, 2)]
    value = lines(rows)["weak"].values["x"]
    assert math.isnan(value.low)
    assert 0 <= value.mean <= 1
