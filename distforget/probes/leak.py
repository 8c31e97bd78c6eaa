"""What an attacker finds who draws several answers: leak@k."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, spread
from distforget.probes.facts import recall


class LeakConfig(Part):
    """The facts that drawn answers state; needs verify.drawn and samples with facts."""

    kind: Literal["leak"] = "leak"


def run(evidence: TextEvidence, config: LeakConfig) -> Scores:
    """Score the samples that have facts and drawn answers."""
    drawn, facts = evidence.drawn_answers(), evidence.samples["facts"].to_pylist()
    rows = [
        row for row, (own, of_one) in enumerate(zip(drawn, facts, strict=True)) if own and of_one
    ]
    if not rows:
        return Scores({})
    of_draws = [recall(own := list(drawn[row] or ()), [facts[row]] * len(own)) for row in rows]
    count = len(evidence.samples)
    return Scores(
        {
            "leak_at_k": spread([float(values.max()) for values in of_draws], rows, count),
            "leak_mean": spread([float(values.mean()) for values in of_draws], rows, count),
            "leak_probability": spread(
                [float(np.mean(values == 1)) for values in of_draws], rows, count
            ),
        }
    )


PROBE = Probe(
    config=LeakConfig,
    version=1,
    source="leak@k (Reisizadeh et al. 2025): the largest share of a sample's facts that any of the "
    "k drawn answers states, its mean over them, and the share of draws that state all",
    track="text",
    run=run,
    metrics=(
        Metric("leak_at_k", 0, 1),
        Metric("leak_mean", 0, 1),
        Metric("leak_probability", 0, 1),
    ),
    by_default=False,
)
