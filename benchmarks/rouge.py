"""Measures ROUGE against the rouge-score package, in one run: pairs a second, and 14 languages.

    python benchmarks/rouge.py [--pairs 20000] [--baseline-pairs 500] [--repeats 3]

The pairs are sentences of 10 to 40 words (descriptions of the installed packages) and noisy copies
of them, as an unlearned model may answer. References repeat (50 distinct ones, as when cells ask
the same questions) or are all different. Times are CPU time of this process, the best of a few
repeats, the stems of earlier calls forgotten. Ends with an error if a number differs by over 1e-9.

The languages: the ROUGE-L recall that rouge-score and a study give to a true answer itself, to
one of which half is right and to one that is wrong.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
import re
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import Score

from distforget import rouge

KINDS = ("rouge1", "rouge2", "rougeL")
PARTS = ("precision", "recall", "fmeasure")
LANGUAGES = {
    "English": ("born in Oslo", "born in Rome", "a retired painter"),
    "German": ("geboren in Köln", "geboren in Wien", "übt Malerei"),
    "Russian": ("родился в Москве", "родился в Омске", "рисует картины"),
    "Greek": ("γεννήθηκε στην Αθήνα", "γεννήθηκε στην Πάτρα", "ζωγραφίζει τοπία"),
    "Arabic": ("وُلد في دمشق", "وُلد في حلب", "يرسم لوحات"),
    "Hebrew": ("נולד בעיר חיפה", "נולד בעיר אילת", "מצייר תמונות"),
    "Hindi": ("जन्म लखनऊ में", "जन्म पटना में", "वह चित्रकार है"),
    "Bengali": ("জন্ম ঢাকা শহরে", "জন্ম যশোর শহরে", "ছবি আঁকেন"),
    "Tamil": ("மதுரை நகரில் பிறந்தார்", "கோவை நகரில் பிறந்தார்", "ஓவியம் வரைகிறார்"),
    "Thai": ("เกิดที่ตราด", "เกิดที่ชุมพร", "วาดรูป"),
    "Chinese": ("他生于青岛", "他生于成都", "画家"),
    "Japanese": ("青森に生まれた", "東京に生まれた", "画家です"),
    "Korean": ("서울에서 태어난 사람", "부산에서 태어난 사람", "그림을 그린다"),
    "Amharic": ("በአዲስ አበባ ተወለደ", "በጎንደር ከተማ ተወለደ", "ሥዕል ይስላል"),
}
"""True answer, one of which about half is right, a wrong one."""

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


def print_languages() -> None:
    """Print one line a language."""
    print(f"\n{'':<12}{'rouge-score':>24}{'distforget':>24}   (ROUGE-L recall)")
    print(f"{'language':<12}" + f"{'perfect':>10}{'half':>7}{'wrong':>7}" * 2 + "   words")
    scorer = RougeScorer(["rougeL"])
    for language, (true, *others) in LANGUAGES.items():
        answers = [true, *others]
        before = [scorer.score(true, answer)["rougeL"].recall for answer in answers]
        unicode_words = rouge.need_unicode_words([true])
        table = rouge.rouge_scores(answers, [true] * 3, False, unicode_words)
        after = table["rougeL_recall"].to_pylist()
        shown = "".join(f"{a:>10.2f}{b:>7.2f}{c:>7.2f}" for a, b, c in (before, after))
        print(f"{language:<12}{shown}   {'unicode' if unicode_words else 'rouge-score'}")
        if after[0] != 1:
            raise SystemExit(f"{language}: the true answer scores {after[0]}")


def main() -> None:
    """Print one line for each setting, then one for each language."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--baseline-pairs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"{'references':<12}{'stemmer':<9}{'rouge-score':>12}{'distforget':>12}{'ratio':>8}"
        f"{'difference':>12}{'unicode':>9}   (pairs/s of CPU time)"
    )
    for repeated in (True, False):
        predictions, references = pairs(arguments.pairs, repeated)
        few = list(zip(references, predictions, strict=True))[: arguments.baseline_pairs]
        for use_stemmer in (False, True):
            scorer = RougeScorer(list(KINDS), use_stemmer=use_stemmer)

            def baseline(few: list[tuple[str, str]] = few, scorer: RougeScorer = scorer) -> Scores:
                return [scorer.score(target, prediction) for target, prediction in few]

            def ours(
                unicode_words: bool = False,
                predictions: list[str] = predictions,
                references: list[str] = references,
                use_stemmer: bool = use_stemmer,
            ) -> pa.Table:
                rouge._stem.cache_clear()
                return rouge.rouge_scores(predictions, references, use_stemmer, unicode_words)

            baseline_seconds, expected = best(arguments.repeats, baseline)
            seconds, table = best(arguments.repeats, ours)
            unicode_seconds, _ = best(arguments.repeats, partial(ours, unicode_words=True))
            baseline_rate = len(few) / baseline_seconds
            rate = len(references) / seconds
            difference = worst_difference(table, expected)
            print(
                f"{'repeated' if repeated else 'distinct':<12}{'yes' if use_stemmer else 'no':<9}"
                f"{baseline_rate:>12.0f}{rate:>12.0f}{rate / baseline_rate:>8.1f}"
                f"{difference:>12.1e}{len(references) / unicode_seconds:>9.0f}"
            )
            if difference > 1e-9:
                raise SystemExit(f"rouge_scores differs from rouge-score by {difference}")
    print_languages()


if __name__ == "__main__":
    main()
