"""Damage to samples that should stay, against loops over a hand-made table of scores."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from distforget.analysis.verdicts import damages
from tests.unit.test_analysis import (
    DOSES,
    METHODS,
    METRIC,
    MISSING,
    MODELS,
    ROWS,
    SEEDS,
    TARGETS,
    cells_table,
    mean,
    table,
)


def test_damage_is_the_fall_of_other_samples_and_of_the_own_neighbours() -> None:
    found = damages(table(ROWS), cells_table())
    assert len(found) == 2 * len(MODELS) * len(METHODS) * len(DOSES)
    for damage in found:
        asked = {"model": damage.model, "dose": damage.dose, "role": damage.role}
        method = {"method": damage.method, "variant": damage.variant}
        after = mean(ROWS, **asked, **method)
        assert after is not None
        cells = [
            r for r in ROWS if r["metric"] == METRIC and r.items() >= {**asked, **method}.items()
        ]
        before = [
            mean(ROWS, **asked, phase="pre_unlearn", **{n: r[n] for n in ("seed", "sample_id")})
            for r in cells
        ]
        assert all(before)
        values = [found[0] for found in before if found]
        assert damage.before[METRIC] == pytest.approx(sum(values) / len(values))
        assert damage.after[METRIC] == pytest.approx(after[0])
        assert damage.before.keys() == {METRIC, "rouge1_recall"}
        whose = (damage.model, damage.method, damage.variant, damage.dose)
        gone = [c for c in MISSING if c[:4] == whose]
        assert damage.cells == TARGETS * len(SEEDS) - len(gone)
        assert damage.diverged == len(SEEDS) - sum(c[5] == 3 for c in gone)


def test_damage_of_neighbours_compares_the_same_samples() -> None:
    mine = cells_table().filter(pc.equal(cells_table()["unlearned"], 2))
    found = damages(table([r for r in ROWS if r.get("unlearned") in (None, 2)]), mine)
    neighbours = [damage for damage in found if damage.role == "neighbour"]
    assert len(neighbours) == len(MODELS) * len(METHODS) * len(DOSES)
    for damage in neighbours:
        asked = {"model": damage.model, "dose": damage.dose, "sample_id": 502}
        whose = (damage.model, damage.method, damage.variant, damage.dose)
        seeds = [seed for seed in SEEDS if (*whose, seed, 2) not in MISSING]
        before = [mean(ROWS, **asked, phase="pre_unlearn", seed=seed) for seed in seeds]
        values = [found[0] for found in before if found]
        assert damage.before[METRIC] == pytest.approx(sum(values) / len(values))


def test_samples_that_a_cell_was_not_asked_count_neither_before_nor_after() -> None:
    cell = {"model": "m1", "method": "GA", "variant": "plain", "dose": 3}
    kept = [r for r in ROWS if not (r.items() >= cell.items() and r["sample_id"] == 1001)]
    (damage,) = (
        d
        for d in damages(table(kept), cells_table())
        if (d.role, d.model, d.method, d.variant, d.dose) == ("other", "m1", "GA", "plain", 3)
    )
    before = mean(ROWS, model="m1", dose=3, phase="pre_unlearn", sample_id=1000, seed=0)
    other = mean(ROWS, model="m1", dose=3, phase="pre_unlearn", sample_id=1000, seed=1)
    assert before
    assert other
    # Two cells of seed 0 (one is missing), three of seed 1.
    assert damage.before[METRIC] == pytest.approx((2 * before[0] + 3 * other[0]) / 5)


def test_nothing_asked_is_no_damage() -> None:
    assert damages(table([]), cells_table()) == []
