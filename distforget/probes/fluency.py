"""Whether a model still speaks: answers that are empty or go round in circles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, free_rows, spread
from distforget.words import unicode_words


class FluencyConfig(Part):
    """The share of repeated word sequences in an answer, and whether it is empty."""

    kind: Literal["fluency"] = "fluency"
    length: int = Field(2, ge=1, description="n, words of a sequence")


def run(evidence: TextEvidence, config: FluencyConfig) -> Scores:
    """Score the samples that are answered freely."""
    rows, count = free_rows(evidence.samples), len(evidence.samples)
    if not rows:
        return Scores({})
    answers = evidence.answers()
    words = [unicode_words(answers[row]) for row in rows]
    return Scores(
        {
            "repetition": spread([repetition(one, config.length) for one in words], rows, count),
            "empty_answer": spread([float(not one) for one in words], rows, count),
        }
    )


def repetition(words: list[str], n: int) -> float:
    """1 - distinct / all sequences of n words; 0 where there are none."""
    every = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(every)) / len(every) if every else 0.0


PROBE = Probe(
    config=FluencyConfig,
    version=1,
    source="seq-rep-n (Welleck et al. 2020, Neural Text Generation with Unlikelihood Training) of "
    "the model's answer, and the share of empty answers; both higher: worse",
    track="text",
    run=run,
    metrics=(
        Metric("repetition", 0, 1, measures_nothing=True),
        Metric("empty_answer", 0, 1, measures_nothing=True),
    ),
    by_default=False,
)
