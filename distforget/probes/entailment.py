"""Whether the model's answer says what the true answer says, judged by another model."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import Field

from distforget.finding.entailment import entailment_content, open_entailment
from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, free_rows, spread

FIELD = "probes.entailment.path"


class EntailmentConfig(Part):
    """Probability that the answer entails the true answer."""

    kind: Literal["entailment"] = "entailment"
    path: str = Field(
        min_length=1,
        description="model of natural language inference, a folder or hub id; one of its labels is "
        "entailment",
    )


def run(evidence: TextEvidence, config: EntailmentConfig) -> Scores:
    """Ask about the samples that are answered freely; the question stands before both answers."""
    rows = free_rows(evidence.samples)
    if not rows:
        return Scores({})
    questions, true = (evidence.samples[name].to_pylist() for name in ("question", "answer"))
    answers = evidence.answers()
    pairs = [(f"{questions[row]} {answers[row]}", f"{questions[row]} {true[row]}") for row in rows]
    chances = _judge(config.path, FIELD)(pairs)
    return Scores({"entailment": spread(chances, rows, len(evidence.samples))})


_judge = lru_cache(maxsize=1)(open_entailment)
"""A worker scores many states, one after the other."""

PROBE = Probe(
    config=EntailmentConfig,
    version=1,
    source="entailment of the true answer by the model's, as a given model sees it (Yuan et al. "
    "2025, A Closer Look at Machine Unlearning for Large Language Models)",
    track="text",
    run=run,
    metrics=(Metric("entailment", 0, 1),),
    content=lambda config: entailment_content(config.path, FIELD),
    by_default=False,
)
