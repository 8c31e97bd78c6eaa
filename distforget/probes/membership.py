"""Scores by which attackers guess whether a text was trained on; higher: rather yes."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from pydantic import Field

from distforget.metrics import MIN_K_PLUS
from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, Tokens, spread

LEAST_DEVIATION = 1e-6
"""In nats; where the model is quite sure of a token, its deviation is no measure."""
LOWEST = -1e6
"""Score of a model that diverged."""


class MembershipConfig(Part):
    """Min-K%, Min-K%++ and zlib of the true answer."""

    kind: Literal["membership"] = "membership"
    share: float = Field(0.2, gt=0, le=1, description="share of the tokens, the least likely ones")


def run(evidence: TextEvidence, config: MembershipConfig) -> Scores:
    """Score the samples that are answered freely."""
    known = [(row, one) for row, one in enumerate(evidence.tokens()) if one is not None]
    if not known:
        return Scores({})
    rows, count = [row for row, _ in known], len(evidence.samples)
    answers = evidence.samples["answer"].to_pylist()
    values = {
        "min_k": [lowest(one.logprobs_T, config.share) for _, one in known],
        MIN_K_PLUS: [lowest(standardised(one), config.share) for _, one in known],
        "zlib": [
            float(one.logprobs_T.sum(dtype=np.float64)) / len(zlib.compress(answers[row].encode()))
            for row, one in known
        ],
    }
    found = {name: np.nan_to_num(own, nan=LOWEST) for name, own in values.items()}
    return Scores({name: spread(own, rows, count) for name, own in found.items()})


def lowest(values_T: np.ndarray, share: float) -> float:
    """Mean of this share of the values, the lowest ones, at least one."""
    kept = max(1, int(len(values_T) * share))
    return float(np.sort(values_T.astype(np.float64))[:kept].mean())


def standardised(tokens: Tokens) -> np.ndarray:
    """(T,) log p of each token less its mean over the vocabulary, in standard deviations."""
    deviations_T = np.maximum(tokens.deviations_T, LEAST_DEVIATION)
    found: np.ndarray = (tokens.logprobs_T - tokens.means_T) / deviations_T
    return found


PROBE = Probe(
    config=MembershipConfig,
    version=1,
    source="Min-K% (Shi et al. 2024), Min-K%++ (Zhang et al. 2025), and log p over the compressed "
    "size (Carlini et al. 2021); higher: rather trained on",
    track="text",
    run=run,
    metrics=(Metric("min_k", high=0), Metric(MIN_K_PLUS), Metric("zlib", high=0)),
)
