"""Whether a model prefers the true answer to wrong ones of the same form."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distforget.metrics import TRUTH_RATIO
from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, spread

LARGEST = 1e6
"""Ratio of a model that gives the true answer no probability, and of one that diverged."""


class TruthConfig(Part):
    """Probability of wrong answers over that of the true one."""

    kind: Literal["truth"] = "truth"


def run(evidence: TextEvidence, config: TruthConfig) -> Scores:
    """Score the samples that have wrong answers."""
    tokens, wrong = evidence.tokens(), evidence.wrong_logprobs()
    known = [
        (row, float(own.logprobs_T.mean(dtype=np.float64)), float(others.mean(dtype=np.float64)))
        for row, (own, others) in enumerate(zip(tokens, wrong, strict=True))
        if own is not None and others is not None
    ]
    if not known:
        return Scores({})
    rows, count = [row for row, _, _ in known], len(evidence.samples)
    with np.errstate(over="ignore"):
        ratios = np.exp([others - own for _, own, others in known])
    ratios = np.nan_to_num(ratios, nan=LARGEST).clip(max=LARGEST)
    return Scores(
        {
            TRUTH_RATIO: spread(ratios, rows, count),
            "truth_share": spread(1 / (1 + ratios), rows, count),
        }
    )


PROBE = Probe(
    config=TruthConfig,
    version=1,
    source="truth ratio (Maini et al. 2024, TOFU, Eq. 1; geometric mean over the wrong answers, as "
    "in its code): p(wrong)^(1/tokens) / p(true)^(1/tokens); truth_share is 1 / (1 + ratio)",
    track="text",
    run=run,
    metrics=(
        Metric(TRUTH_RATIO, 0, LARGEST, falls=True),
        Metric("truth_share", 0, 1),
    ),
)
