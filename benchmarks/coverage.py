"""How often intervals hold the truth, and verdicts are wrong, over simulated studies.

    python benchmarks/coverage.py [--quick] [--studies 1000] [--output coverage.json]

Each study draws its targets (and, with seeds, repetitions within them) from a distribution whose
mean is known. Coverage is that of the 95 % interval of `analysis.intervals`, beside Student's t
and scipy's percentile and BCa bootstrap on the same studies. A verdict is false if it is supported
or contradicted where there is no effect, or if either is said of "about 0" where the mean is as far
off as the margin; the rate is that of studies with any false verdict among their methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import parser, report
from numpy.typing import NDArray
from scipy import stats

from distforget.analysis.intervals import infer
from distforget.analysis.verdicts import decide
from distforget.draws import rng

Floats = NDArray[np.float64]
SIZES, METHODS, MARGIN = (5, 8, 20, 50), 8, 0.1
HOW = ("1 seed", "3 seeds", "2 seeds, shared", "3 seeds, shared", "5 seeds, shared")


def km(draw: np.random.Generator, shape: tuple[int, ...], mean: float) -> Floats:
    """Scores in [0, 1], the more skewed the further their mean is from a half (Beta, a + b = 3)."""
    return draw.beta(3 * mean, 3 * (1 - mean), shape)


Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
TRUTHS: dict[str, tuple[float, Draw]] = {
    "normal": (0.0, lambda draw, shape: draw.normal(0, 0.2, shape)),
    "KM, little left": (0.15, lambda draw, shape: km(draw, shape, 0.15)),
    "KM after - before": (-0.45, lambda draw, shape: km(draw, shape, 0.3) - km(draw, shape, 0.75)),
    "KM, half of it 0": (
        0.15,
        lambda draw, shape: km(draw, shape, 0.3) * draw.integers(0, 2, shape),
    ),
    "facts, two of each": (
        0.5,
        lambda draw, shape: draw.choice([0, 0.5, 1], shape, p=[0.3, 0.4, 0.3]),
    ),
}
NOTHING: dict[str, Draw] = {
    "normal": TRUTHS["normal"][1],
    "KM - KM alike": lambda draw, shape: km(draw, shape, 0.3) - km(draw, shape, 0.3),
    "skewed, mean 0": lambda draw, shape: km(draw, shape, 0.15) - 0.15,
    "facts - facts alike": lambda draw, shape: (
        draw.choice([0, 0.5, 1], (2, *shape), p=[0.2, 0.2, 0.6]) * [[[1]], [[-1]]]
    ).sum(axis=0),
}


def studies(draw: np.random.Generator, of: Draw, shape: tuple[int, int], how: str) -> Floats:
    """Values (studies, targets, seeds), with noise of each seed if there are several.

    With a shared seed, all targets of a seed go up or down together.
    """
    seeds = int(how.split()[0])
    found = np.repeat(of(draw, shape)[..., None], seeds, axis=-1)
    if seeds > 1:
        found = found + draw.normal(0, 0.1, (*shape, seeds))
    if how.endswith("shared"):
        found = found + draw.normal(0, 0.1, (shape[0], 1, seeds))
    return found


def percent_held(truth: float, low: Floats, high: Floats) -> float:
    """Percent of intervals that hold the truth."""
    return 100 * float(((low <= truth) & (truth <= high)).mean())


def coverage(count: int) -> list[dict[str, Any]]:
    """A row a distribution, number of targets and kind of seeds."""
    rows = []
    for size in SIZES:
        for how in HOW:
            for name, (truth, of) in TRUTHS.items():
                draw = rng(0, "coverage", size, how, name)
                whole = studies(draw, of, (count, size), how)
                known, values = infer(list(whole)), whole.mean(axis=-1)
                row: dict[str, Any] = {"targets": size, "seeds": how, "scores": name}
                row["studentised %"] = percent_held(truth, known.low_G, known.high_G)
                half = stats.t.ppf(0.975, size - 1) * stats.sem(values, axis=1)
                middle = values.mean(axis=1)
                row["Student %"] = percent_held(truth, middle - half, middle + half)
                for method in ("percentile", "BCa"):
                    found = stats.bootstrap(
                        (values,),
                        np.mean,
                        axis=1,
                        method=method,
                        n_resamples=999,
                        batch=50,
                        rng=draw,
                    ).confidence_interval
                    row[f"{method} %"] = percent_held(truth, found.low, found.high)
                row["median width"] = float(np.median(known.high_G - known.low_G))
                rows.append(row)
    return rows


def false_verdicts(count: int) -> list[dict[str, Any]]:
    """A row a distribution and number of targets: percent of studies with a false verdict."""
    rows = []
    for size in SIZES:
        for name, of in NOTHING.items():
            draw = rng(0, "nothing", size, name)
            values = of(draw, (count * METHODS, size))
            known = infer(list(values), (0.0, -MARGIN, MARGIN))
            shifted = infer(list(values + MARGIN), (0.0, -MARGIN, MARGIN))
            row: dict[str, Any] = {"targets": size, "differences": name}
            for what, found, expected, margin, bad in (
                ("direction, margin 0", known, "positive", 0.0, ("supported", "contradicted")),
                ("direction", known, "positive", MARGIN, ("supported", "contradicted")),
                ("about 0 supported", shifted, "zero", MARGIN, ("supported",)),
                ("about 0 contradicted", shifted, "zero", MARGIN, ("contradicted",)),
            ):
                wrong = 0
                for start in range(0, count * METHODS, METHODS):
                    words = decide(found.of(slice(start, start + METHODS)), expected, margin)
                    wrong += any(word in bad for word, _ in words)
                row[f"{what} %"] = 100 * wrong / count
            rows.append(row)
    return rows


def main() -> None:
    """Print both tables."""
    made = parser(__doc__)
    made.add_argument("--studies", type=int, default=1000)
    given = made.parse_args()
    count = 100 if given.quick else given.studies
    began = time.perf_counter()
    for title, measure, suffix in (
        ("coverage of 95 % intervals (wanted: 93 to 97)", coverage, ""),
        (
            f"false verdicts of {METHODS} methods without effect (at most 5)",
            false_verdicts,
            "-false",
        ),
    ):
        rows = measure(count)
        about = {"studies": count, "seconds": round(time.perf_counter() - began)}
        output = given.output and given.output.with_stem(given.output.stem + suffix)
        report(title, rows, about, output)


if __name__ == "__main__":
    main()
