"""Which of a sample's facts an answer states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distforget.metrics import FACT_RECALL
from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence
from distforget.words import states


class FactsConfig(Part):
    """The share of a sample's facts that the answer states."""

    kind: Literal["facts"] = "facts"


def run(evidence: TextEvidence, config: FactsConfig) -> Scores:
    """Score the samples that have facts."""
    facts = evidence.samples["facts"].to_pylist()
    if all(of_one is None for of_one in facts):
        return Scores({})
    return Scores({FACT_RECALL: recall(evidence.answers(), facts)})


def recall(answers: Sequence[str], facts: Sequence[Sequence[str] | None]) -> NDArray[np.float64]:
    """The share of each sample's facts that its answer states: (N,), 0 to 1.

    Unlike the share of words (ROUGE) it is 0 for an answer of the right form about something else,
    and 1 for a restatement in other words.

    Args:
        facts: of each sample, at least one each; None where there are none, masked in the result.
    """
    found = np.ma.array(np.zeros(len(answers)), mask=[of_one is None for of_one in facts])
    for row, (answer, of_one) in enumerate(zip(answers, facts, strict=True)):
        if of_one is not None:
            found[row] = np.mean([states(answer, fact) for fact in of_one])
    return found


PROBE = Probe(
    config=FactsConfig,
    version=1,
    source="the share of a sample's facts, as column facts lists them, that the answer states",
    track="text",
    run=run,
    metrics=(Metric(FACT_RECALL, 0, 1, leads=True),),
)
