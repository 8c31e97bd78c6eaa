"""Measures ROUGE pairs a second against the rouge-score package, in one run on the same pairs.

    python benchmarks/rouge.py [--pairs 20000] [--baseline-pairs 500] [--repeats 3]

The pairs are sentences of 10 to 40 words (descriptions of the installed packages) and noisy copies
of them, as an unlearned model may answer. References repeat (50 distinct ones, as when cells ask
the same questions) or are all different. Times are CPU time of this process, the best of a few
repeats, the stems of earlier calls forgotten. Ends with an error if a number differs by over 1e-9.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

from distforget.tracks.text import rouge

KINDS = ("rouge1", "rouge2", "rougeL")
PARTS = ("precision", "recall", "fmeasure")
Scores = list[dict[str, Score]]
R = TypeVar("R")


def sentences() -> list[str]:
    """Distinct sentences of 10 to 40 words from the descriptions of installed packages."""
    found: set[str] = set()
    for distribution in importlib.metadata.distributions():
        text = str(distribution.metadata.json.get("description", ""))
        for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text):
            if 10 <= len(sentence.split()) <= 40:
                found.add(sentence)
    return sorted(found)


def noisy(draw: random.Random, text: str, words: list[str]) -> str:
    """The text with four in ten words replaced."""
    return " ".join(word if draw.random() < 0.6 else draw.choice(words) for word in text.split())


def pairs(count: int, repeated: bool) -> tuple[list[str], list[str]]:
    """Predictions and references, 50 distinct references or all of them different."""
    draw = random.Random(0)
    texts = sentences()
    words = " ".join(texts).split()
    if repeated:
        few = draw.sample(texts, 50)
        references = [few[index % 50] for index in range(count)]
    else:
        references = [noisy(draw, draw.choice(texts), words) for _ in range(count)]
    return [noisy(draw, reference, words) for reference in references], references


def best(repeats: int, function: Callable[[], R]) -> tuple[float, R]:
    """Least CPU seconds of a few calls, and what the last one returned."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def worst_difference(table: pa.Table, expected: Scores) -> float:
    """Largest absolute difference over all pairs and columns."""
    return max(
        float(
            np.abs(
                table[f"{kind}_{part}"].to_numpy()[: len(expected)]
                - np.array([getattr(score[kind], part) for score in expected], dtype=float)
            ).max()
        )
        for kind in KINDS
        for part in PARTS
    )


def main() -> None:
    """Print one line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--baseline-pairs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"{'references':<12}{'stemmer':<9}{'rouge-score':>12}{'distforget':>12}{'ratio':>8}"
        f"{'difference':>12}   (pairs/s of CPU time)"
    )
    for repeated in (True, False):
        predictions, references = pairs(arguments.pairs, repeated)
        few = list(zip(references, predictions, strict=True))[: arguments.baseline_pairs]
        for use_stemmer in (False, True):
            scorer = RougeScorer(list(KINDS), use_stemmer=use_stemmer)

            def baseline(few: list[tuple[str, str]] = few, scorer: RougeScorer = scorer) -> Scores:
                return [scorer.score(target, prediction) for target, prediction in few]

            def ours(
                predictions: list[str] = predictions,
                references: list[str] = references,
                use_stemmer: bool = use_stemmer,
            ) -> pa.Table:
                rouge._stem.cache_clear()
                return rouge.rouge_scores(predictions, references, use_stemmer)

            baseline_seconds, expected = best(arguments.repeats, baseline)
            seconds, table = best(arguments.repeats, ours)
            baseline_rate = len(few) / baseline_seconds
            rate = len(references) / seconds
            difference = worst_difference(table, expected)
            print(
                f"{'repeated' if repeated else 'distinct':<12}{'yes' if use_stemmer else 'no':<9}"
                f"{baseline_rate:>12.0f}{rate:>12.0f}{rate / baseline_rate:>8.1f}"
                f"{difference:>12.1e}"
            )
            if difference > 1e-9:
                raise SystemExit(f"rouge_scores differs from rouge-score by {difference}")


if __name__ == "__main__":
    main()
