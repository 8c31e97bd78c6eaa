"""The two aims of a search against loops over the rows, and the front against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distforget.analysis.aims import aims, front
from distforget.engine.tune import search_space
from distforget.method_choice import MethodChoice
from distforget.methods import resolve
from tests.unit.test_analysis import METRIC, ROWS, TARGETS, Row, table

STATE = {"model": "m1", "dose": 3, "seed": 1, "method": "TV"}


def rows_of_one_method() -> list[Row]:
    """One model, dose, seed and method, in two variants."""
    return [r for r in ROWS if all(r.get(name) in (None, value) for name, value in STATE.items())]


def test_aims_are_those_of_a_loop() -> None:
    rows = [r for r in rows_of_one_method() if r["metric"] == METRIC]
    before = {(r["phase"], r["sample_id"]): r["value"] for r in rows if "unlearned" not in r}
    found = aims(table(rows_of_one_method()), METRIC)
    assert found.keys() == {"plain", "slow"}
    for variant, aim in found.items():
        mine = [r for r in rows if r.get("variant") == variant]
        targets = [r for r in mine if r["role"] == "target"]
        gaps = [abs(r["value"] - before["pre_finetune", r["sample_id"]]) for r in targets]
        assert len(gaps) == TARGETS
        assert aim.forget_gap == pytest.approx(sum(gaps) / len(gaps))
        lost = {
            role: [
                max(0.0, before["pre_unlearn", r["sample_id"]] - r["value"])
                for r in mine
                if r["role"] == role
            ]
            for role in ("other", "neighbour")
        }
        means = [sum(values) / len(values) for values in lost.values()]
        assert aim.retain_gap == pytest.approx(sum(means) / 2)
        assert aim.target == pytest.approx(sum(r["value"] for r in targets) / TARGETS)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_nothing_beats_the_front_and_it_beats_all_else(pairs: list[tuple[int, int]]) -> None:
    found = set(front([(float(a), float(b)) for a, b in pairs]))

    def beats(i: int, j: int) -> bool:
        return pairs[i] != pairs[j] and all(x <= y for x, y in zip(pairs[i], pairs[j], strict=True))

    assert found
    assert not any(beats(i, j) for i in range(len(pairs)) for j in found)
    assert all(any(beats(i, j) for i in found) for j in set(range(len(pairs))) - found)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("GA", {"learning_rate", "steps"}),
        ("GA_KLN", {"learning_rate", "steps", "retain_weight"}),
        ("NPO_GDN", {"learning_rate", "steps", "retain_weight", "beta"}),
        ("TV", {"learning_rate", "steps", "scale"}),
        ("retrain", set()),
    ],
)
def test_what_is_searched_is_what_the_method_uses(name: str, settings: set[str]) -> None:
    method = resolve(MethodChoice(name=name))
    space = search_space(method)
    assert space.keys() == settings
    for setting, within in space.items():
        assert within.low <= getattr(method.config, setting) <= within.high
