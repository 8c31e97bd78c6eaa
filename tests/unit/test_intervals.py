"""Intervals and corrections against closed forms, scipy and hand-worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distforget.analysis.intervals import RESAMPLES, equivalence, exact_p, holm, infer
from distforget.analysis.power import smallest_effect

SKEWED = np.array([0.02, 0.05, 0.03, 0.4, 0.11, 0.08, 0.3, 0.01, 0.15, 0.06])


def draws(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 0.2, size)


@pytest.mark.parametrize("size", [3, 4, 5, 50])
@pytest.mark.parametrize("value", [0.0, 0.1 + 0.2, -0.7])
def test_constant_differences_have_an_interval_of_no_width(size: int, value: float) -> None:
    found = infer([np.full(size, value)], (0.0,))
    assert found.low_G[0] == found.high_G[0] == pytest.approx(value)
    assert (found.above_GK[0, 0] < 0.001) == (value > 0)
    assert (found.below_GK[0, 0] < 0.001) == (value < 0)


def test_a_few_values_have_no_interval() -> None:
    found = infer([np.array([0.5]), np.array([0.5, 0.6])], (0.0,))
    assert found.estimate_G == pytest.approx([0.5, 0.55])
    assert np.isnan([found.low_G, found.high_G]).all()
    assert (found.above_GK == 1).all()
    assert (found.below_GK == 1).all()


def test_three_values_have_the_interval_of_student() -> None:
    # mean 2, standard deviation 1, t(0.975; 2) = 4.302653 (tables)
    found = infer([np.array([1.0, 2.0, 3.0])])
    half = 4.302653 / np.sqrt(3)
    assert [found.low_G[0], found.high_G[0]] == pytest.approx([2 - half, 2 + half], rel=1e-5)


@pytest.mark.parametrize("values", [SKEWED, draws(5), draws(50)], ids=["skewed", "5", "50"])
def test_the_interval_is_that_of_a_loop_over_resamples(values: np.ndarray) -> None:
    draw, size = np.random.default_rng(1), len(values)
    ratios = []
    for _ in range(6_000):
        again = draw.choice(values, size)
        shift, error = again.mean() - values.mean(), again.std(ddof=1) / np.sqrt(size)
        ratios.append(shift / error if error > 1e-12 else np.sign(shift) * np.inf)
    error = values.std(ddof=1) / np.sqrt(size)
    high, low = values.mean() - np.quantile(ratios, [0.025, 0.975], method="lower") * error
    found = infer([values])
    width = high - low
    assert [found.low_G[0], found.high_G[0]] == pytest.approx([low, high], abs=0.08 * width)


def test_many_smooth_values_have_the_interval_of_scipys_bootstrap() -> None:
    values = draws(400)
    found = infer([values])
    theirs = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert [found.low_G[0], found.high_G[0]] == pytest.approx(list(theirs), abs=0.002)


def test_a_longer_tail_makes_a_longer_side() -> None:
    found = infer([SKEWED])
    assert found.high_G[0] - found.estimate_G[0] > 1.5 * (found.estimate_G[0] - found.low_G[0])


def test_groups_do_not_change_each_other() -> None:
    groups = [draws(5, 1), draws(7, 2), draws(5, 3), draws(3, 4), draws(7, 5)]
    together = infer(groups, (0.0, 0.2))
    for i, group in enumerate(groups):
        alone = infer([group], (0.0, 0.2))
        for name in ("estimate_G", "low_G", "high_G", "above_GK", "below_GK"):
            np.testing.assert_allclose(getattr(together, name)[i], getattr(alone, name)[0])


@pytest.mark.parametrize("one", [0.6, 0.5, 0.0])
def test_ties_do_not_hide_what_seven_of_eight_targets_say(one: float) -> None:
    found = infer([np.array([1.0] * 7 + [one])], bounds=(-1, 1))
    assert 0 < found.low_G[0] < found.estimate_G[0] < found.high_G[0] <= 1
    assert found.above_GK[0, 0] < 0.005


def test_bounds_hold() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.0, -0.4])
    assert infer([values]).low_G[0] < -0.2
    assert infer([values], bounds=(-0.2, 1)).low_G[0] == -0.2


@pytest.mark.parametrize("size", [8, 20])
def test_scores_of_few_values_have_intervals_that_hold_the_mean(size: int) -> None:
    draw = np.random.default_rng(0)
    shares, values = [0.3, 0.4, 0.3], np.array([0.0, 0.5, 1.0])
    found = infer([draw.choice(values, size, p=shares) for _ in range(400)])
    assert ((found.low_G <= 0.5) & (found.high_G >= 0.5)).mean() > 0.93


def test_an_interval_leaves_out_what_its_p_value_rejects() -> None:
    for size in (3, 4, 6, 20):
        for seed in range(10):
            values = draws(size, seed)
            found = infer([values], level=0.9)
            if found.above_GK[0, 0] < 0.05:
                assert found.low_G[0] > 0


def test_holm_is_that_of_a_worked_example() -> None:
    # 4 x 0.005, then 3 x 0.01, 2 x 0.03 and 1 x 0.04, the last raised to the one before
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1, 1])


def test_equivalence_is_two_one_sided_t_tests() -> None:
    # mean 0.02, standard deviation 0.01, n 3; to the margin 0.05 it is t = 0.03 / (0.01 / sqrt 3)
    # = 5.196 on the upper side, whose tail with 2 degrees of freedom is (1 - t/sqrt(t^2 + 2)) / 2
    values = np.array([0.01, 0.02, 0.03])
    found = equivalence(infer([values], (-0.05, 0.05)), 0, 1)
    t = 0.03 / (0.01 / np.sqrt(3))
    assert found[0] == pytest.approx((1 - t / np.sqrt(t**2 + 2)) / 2)


@pytest.mark.parametrize("size", [3, 5, 20])
def test_equivalence_needs_the_90_percent_interval_within(size: int) -> None:
    said = 0
    for seed in range(20):
        values = draws(size, seed) - 0.3
        ninety = infer([values], level=0.9)
        within = ninety.low_G[0] > -0.1 and ninety.high_G[0] < 0.1
        equal = equivalence(infer([values], (-0.1, 0.1)), 0, 1)[0] < 0.05
        assert within or not equal
        said += equal
    assert said or size < 20


def test_p_values_end_at_what_resamples_can_tell() -> None:
    found = infer([10 + draws(50)])
    assert found.above_GK[0, 0] == 1 / (RESAMPLES + 1)


def crossed(draw: np.random.Generator, targets: int, seeds: int, shared: float) -> np.ndarray:
    """Values of a mean of 0, (targets, seeds)."""
    return np.asarray(
        draw.normal(0, 0.2, (targets, 1))
        + draw.normal(0, 0.1, (targets, seeds))
        + draw.normal(0, shared, (1, seeds))
    )


def test_what_a_seed_does_to_all_targets_is_added_as_an_analysis_of_variance_has_it() -> None:
    values = crossed(np.random.default_rng(0), 6, 3, 0.3)
    (n, s), m = values.shape, values.mean()
    of_targets = s * sum((row.mean() - m) ** 2 for row in values) / (n - 1)
    of_seeds = n * sum((column.mean() - m) ** 2 for column in values.T) / (s - 1)
    left = sum(
        (values[i, j] - values[i].mean() - values[:, j].mean() + m) ** 2
        for i in range(n)
        for j in range(s)
    ) / ((n - 1) * (s - 1))
    assert of_seeds > left
    parts = [of_targets / (n * s), of_seeds / (n * s), -left / (n * s)]
    variance = sum(parts)
    freedoms = [n - 1, s - 1, (n - 1) * (s - 1)]
    freedom = variance**2 / sum(p**2 / f for p, f in zip(parts, freedoms, strict=True))
    found, alone = infer([values], (0.0,)), infer([values.mean(axis=1)], (0.0,))
    t = stats.t(freedom)
    wider = t.ppf(0.975) / stats.t.ppf(0.975, n - 1) * math.sqrt(variance / parts[0])
    for end in ("low_G", "high_G"):
        expected = m + wider * (getattr(alone, end)[0] - m)
        assert getattr(found, end)[0] == pytest.approx(expected)
    student = t.sf(abs(m) / math.sqrt(variance))
    assert min(found.above_GK[0, 0], found.below_GK[0, 0]) >= student * (1 - 1e-9)
    assert found.estimate_G[0] == pytest.approx(m)


def test_seeds_that_do_nothing_to_all_targets_change_nothing() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(0, 1, (5, 2))
    values[:, 1] = 2 * values.mean() - values[:, 0] + (values[:, 0] - values[:, 0].mean()) * 2
    values -= values.mean(axis=0)  # equal means of the seeds
    found, alone = infer([values]), infer([values.mean(axis=1)])
    assert (found.low_G, found.high_G) == (alone.low_G, alone.high_G)


def test_missing_cells_count_where_they_are_there() -> None:
    values = crossed(np.random.default_rng(2), 7, 3, 0.3)
    values[0, 1] = np.nan
    found = infer([values])
    assert found.estimate_G[0] == pytest.approx(np.nanmean(values, axis=1).mean())
    whole = infer([values[1:]])
    assert found.high_G[0] - found.low_G[0] == pytest.approx(
        whole.high_G[0] - whole.low_G[0], rel=0.5
    )


def test_intervals_of_shared_seeds_hold_the_mean() -> None:
    draw = np.random.default_rng(3)
    every = [crossed(draw, 20, 3, 0.1) for _ in range(400)]
    found, nested = infer(every), infer([values.mean(axis=1) for values in every])
    held = ((found.low_G <= 0) & (found.high_G >= 0)).mean()
    assert held > 0.9
    assert ((nested.low_G <= 0) & (nested.high_G >= 0)).mean() < 0.87


@given(st.lists(st.integers(-100, 100), min_size=3, max_size=7))
def test_the_exact_test_is_scipys(values: list[int]) -> None:
    """In whole numbers, whose sums scipy does not round: sums that are equal are then equal."""
    of = np.array(values)
    found = stats.permutation_test(
        (of,), lambda x, axis: np.abs(x.sum(axis=axis)), permutation_type="samples",
        n_resamples=np.inf, alternative="greater", vectorized=True,
    )  # fmt: skip
    assert exact_p(of / 100) == pytest.approx(found.pvalue, abs=1e-9)


@pytest.mark.parametrize(("targets", "verdicts"), [(5, 1), (8, 13), (50, 32)])
def test_the_smallest_effect_is_decided_in_80_of_100_simulated_studies(
    targets: int, verdicts: int
) -> None:
    effect = smallest_effect(targets, verdicts)
    draw = np.random.default_rng(4)
    p = stats.ttest_1samp(draw.normal(effect, 1, (20_000, targets)), 0, axis=1).pvalue
    assert (p * verdicts < 0.05).mean() == pytest.approx(0.8, abs=0.015)
