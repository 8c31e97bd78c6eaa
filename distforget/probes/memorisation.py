"""How much of the expected answer comes out token by token, given what stands before."""

from __future__ import annotations

from typing import Literal

import numpy as np

from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, Tokens, spread


class MemorisationConfig(Part):
    """Exact memorisation and extraction strength of the true answer."""

    kind: Literal["memorisation"] = "memorisation"


def run(evidence: TextEvidence, config: MemorisationConfig) -> Scores:
    """Score the samples that are answered freely."""
    known = [(row, one) for row, one in enumerate(evidence.tokens()) if one is not None]
    if not known:
        return Scores({})
    rows, count = [row for row, _ in known], len(evidence.samples)
    exact = [float((one.margins_T == 0).mean()) for _, one in known]
    strength = [extraction_strength(one) for _, one in known]
    return Scores(
        {
            "exact_memorisation": spread(exact, rows, count),
            "extraction_strength": spread(strength, rows, count),
        }
    )


def extraction_strength(tokens: Tokens) -> float:
    """1 - k/T, k being the shortest beginning of the answer after which greedy decoding ends it."""
    wrong = np.flatnonzero(tokens.margins_T != 0)
    needed = wrong[-1] + 1 if len(wrong) else 0
    return float(1 - needed / len(tokens.margins_T))


PROBE = Probe(
    config=MemorisationConfig,
    version=1,
    source="share of the true answer's tokens that the model would choose (exact memorisation, "
    "Tirumala et al. 2022), and share of its end that greedy decoding gives (extraction strength, "
    "Carlini et al. 2021; Wang et al. 2025)",
    track="text",
    run=run,
    metrics=(
        Metric("exact_memorisation", 0, 1),
        Metric("extraction_strength", 0, 1),
    ),
)
