"""Probability and perplexity of the expected answer."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, free_rows, spread

HIGHEST_NLL = 700.0
"""Largest negative log-likelihood in nats; the exponential of more does not fit a float."""


class LikelihoodConfig(Part):
    """Probability and perplexity of the true answer."""

    kind: Literal["likelihood"] = "likelihood"


def run(evidence: TextEvidence, config: LikelihoodConfig) -> Scores:
    """p(a|q)^(1/tokens) of the true answers to free questions, and its inverse."""
    rows = free_rows(evidence.samples)
    if not rows:
        return Scores({})
    tokens = [one.logprobs_T for one in evidence.tokens() if one is not None]
    means_N = np.array([logprobs_T.mean(dtype=np.float64) for logprobs_T in tokens])
    # A diverged model's NaN is as far from the answer as can be.
    means_N = np.nan_to_num(means_N, nan=-np.inf)
    count = len(evidence.samples)
    return Scores(
        {
            "answer_probability": spread(np.exp(means_N), rows, count),
            "answer_perplexity": spread(np.exp(np.minimum(-means_N, HIGHEST_NLL)), rows, count),
        }
    )


PROBE = Probe(
    config=LikelihoodConfig,
    version=1,
    source="p(a|q)^(1/tokens) of the true answer, as TOFU (Maini et al. 2024) has it; perplexity",
    track="text",
    run=run,
    metrics=(
        Metric("answer_probability", 0, 1, beside=True),
        Metric("answer_perplexity", 1, falls=True),
    ),
)
