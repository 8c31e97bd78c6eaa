"""Confidence intervals and p-values of means over targets, for many groups at once.

The interval is the studentised bootstrap (bootstrap-t) over targets, seeds nested: a target's value
is its mean over seeds, whole targets are drawn again, and each resample's mean is divided by its
own standard error. It was chosen by simulation (`benchmarks/coverage.py`): of 5 targets the 95 %
interval holds the true mean in 92 to 96 %, of normal and of skewed scores (88 % of scores half of
which are 0, or nothing but noise about it), Student's t in 84 to 95 %, BCa in 79 to 86 %, the
percentile interval in 76 to 84 %. The price is length.

A p-value is the greater of the bootstrap's and Student's t: with 5 targets the bootstrap's far
tail, which Holm's correction of many verdicts asks for, is too short (12 % false verdicts among 40
normal groups), and Student's t alone errs for skewed scores.

The interval says nothing about a seed's effect that all targets share: that shows in the
spread between the seeds' means alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distforget.draws import rng

Floats = NDArray[np.float64]

FEWEST = 3
"""With fewer targets than this there is no interval."""
FEWEST_RESAMPLED = 4
"""Of 3 targets a resample in 27 is one of them three times over, without a standard error: there
the interval is Student's t, which holds for values without much skew."""
RESAMPLES = 19_999
"""The least two-sided p-value is 1e-4: up to 500 verdicts can be corrected together at 5 %."""
OF_TIES = 0.5
"""Square of the distance, in standard deviations, by which one value of a resample of equal values
is taken to differ, so that it has a standard error."""
TOGETHER = 64
"""Groups resampled at once, to bound memory."""


@dataclass(frozen=True)
class Inference:
    """What is known of the true means of G groups; K thresholds are asked about."""

    size_G: NDArray[np.int64]
    """Values in each group."""
    estimate_G: Floats
    low_G: Floats
    """Lower end of the two-sided interval; NaN for fewer than 3 values."""
    high_G: Floats
    above_GK: Floats
    """One-sided p-value against "the mean is at most the threshold"; 1 for fewer than 3 values."""
    below_GK: Floats
    """One-sided p-value against "the mean is at least the threshold"."""

    def of(self, groups: slice) -> Inference:
        """The same for some of the groups."""
        return Inference(*(getattr(self, field.name)[groups] for field in fields(self)))


def infer(
    groups: Sequence[NDArray[np.floating[Any]]],
    thresholds: Sequence[float] = (0.0,),
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> Inference:
    """Means of groups of independent values (a value a target), with intervals and p-values.

    The resamples of groups of equal size are the same draws. Values that are all equal have an
    interval of no width. A resample of equal values alone, which ties make likely (a fact is
    stated or not), has no standard error of its own: see OF_TIES.

    Args:
        groups: G arrays of at least one value each.
        thresholds: K means to test against.
        level: of the two-sided interval.
        bounds: least and largest possible mean, so that no end of an interval lies beyond.
        seed: of the resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    """
    sizes = np.array([len(group) for group in groups])
    estimate_G = np.array([group.mean() for group in groups])
    ends_2G = np.full((2, len(groups)), np.nan)
    p_2GK = np.ones((2, len(groups), len(thresholds)))
    for some, values_nG in _of_equal_size(groups, sizes):
        size = len(values_nG)
        error_G = values_nG.std(axis=0, ddof=1) / np.sqrt(size)
        error_G[error_G <= 1e-12 * np.maximum(1, np.abs(estimate_G[some]))] = 0
        observed_GK = _ratio(estimate_G[some, None] - np.asarray(thresholds), error_G[:, None])
        p_2GK[:, some] = stats.t.sf(observed_GK, size - 1), stats.t.cdf(observed_GK, size - 1)
        if size < FEWEST_RESAMPLED:
            ends = np.array([-1, 1]) * stats.t.ppf((1 + level) / 2, size - 1)
            quantiles_2G = np.repeat(ends[:, None], len(some), axis=1)
        else:
            t_BG = _resampled(values_nG, _counts(size, seed))
            t_BG[:, error_G == 0] = 0
            first = max(round((1 - level) / 2 * (RESAMPLES + 1)), 1) - 1
            last = RESAMPLES - 1 - first
            quantiles_2G = np.partition(t_BG, (first, last), axis=0)[[first, last]]
            p_2GK[:, some] = np.maximum(p_2GK[:, some], _shares(t_BG, observed_GK))
        errors_2G = np.where(error_G > 0, quantiles_2G[::-1] * error_G, 0)
        ends_2G[:, some] = estimate_G[some] - errors_2G
    low_G, high_G = ends_2G.clip(*bounds)
    return Inference(sizes, estimate_G, low_G, high_G, *p_2GK)


def holm(p_values: Floats) -> Floats:
    """Holm's step-down correction: adjusted p-values, in the order given.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(p_values[order] * factors).clip(max=1)
    return adjusted


def combined(p_values: Floats) -> float:
    """One p-value of several, which may depend on each other, e.g. of targets in one model.

    Source: Liu and Xie 2020, "Cauchy Combination Test", equal weights; p of 1, which would outweigh
    all others, cut off as by Fang et al. 2023, "Heavy-tailed distribution for combining dependent
    p-values with asymptotic robustness".
    """
    statistic = np.tan((0.5 - np.clip(p_values, 1e-15, 0.99)) * np.pi).mean()
    return float(0.5 - np.arctan(statistic) / np.pi)


def equivalence(inference: Inference, lower: int, upper: int) -> Floats:
    """p-values of two one-sided tests: that each mean lies between two of the thresholds.

    Below 0.05 only where the 90 % interval lies between them.

    Args:
        inference: of G means.
        lower: which of its thresholds is the least difference that matters, negative.
        upper: and which the positive one.

    Source: Schuirmann 1987, A comparison of the two one-sided tests procedure and the power
    approach.
    """
    return np.maximum(inference.above_GK[:, lower], inference.below_GK[:, upper])


def _of_equal_size(
    groups: Sequence[NDArray[np.floating[Any]]], sizes: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Groups of one size, with their values as columns; groups without an interval are left out."""
    for size in np.unique(sizes[sizes >= FEWEST]):
        every = np.flatnonzero(sizes == size)
        for start in range(0, len(every), TOGETHER):
            some = every[start : start + TOGETHER]
            yield some, np.stack([groups[i] for i in some], axis=1).astype(np.float64)


@lru_cache(maxsize=4)
def _counts(size: int, seed: int) -> Floats:
    """Counts how often each of `size` values occurs in each resample."""
    draw = rng(seed, "resamples", size)
    return draw.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)


def _resampled(values_nG: Floats, counts_Bn: Floats) -> Floats:
    """(resample's mean minus mean) / resample's standard error."""
    size = len(values_nG)
    scale_G = values_nG.std(axis=0)
    centred_nG = (values_nG - values_nG.mean(axis=0)) / np.where(scale_G > 0, scale_G, 1)
    shift_BG = counts_Bn @ centred_nG / size
    variance_BG = counts_Bn @ centred_nG**2 / size - shift_BG**2
    variance_BG[variance_BG < 1e-12] = OF_TIES / size
    shift_BG[np.abs(shift_BG) < 1e-9] = 0
    t_BG: Floats = shift_BG / np.sqrt(variance_BG / (size - 1))
    return t_BG


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """A quotient. Division by 0 gives infinity, or 0 if the numerator is 0 as well."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(numerator / denominator, nan=0, posinf=np.inf, neginf=-np.inf)


def _shares(t_BG: Floats, observed_GK: Floats) -> Floats:
    """Shares of resamples at least as far up, and down, as what was observed, itself included."""
    at_least = np.stack([(t_BG >= observed).sum(axis=0) for observed in observed_GK.T], axis=1)
    at_most = np.stack([(t_BG <= observed).sum(axis=0) for observed in observed_GK.T], axis=1)
    return (1 + np.stack([at_least, at_most])) / (RESAMPLES + 1)
