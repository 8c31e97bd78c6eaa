"""A sample's multiplier in the KKT equations of a trained classifier."""

from __future__ import annotations

from typing import Literal

from distforget.parts import Part
from distforget.probes import ImageEvidence, Metric, Probe, Scores
from distforget.probes._images import places, plain


class KKTConfig(Part):
    """How much the weights are made of a sample's gradient."""

    kind: Literal["kkt"] = "kkt"


def run(evidence: ImageEvidence, config: KKTConfig) -> Scores:
    """kkt_multiplier, for an auditor who holds all samples that any dose trains on."""
    from distforget.imaging.membership import kkt_membership

    found_N = kkt_membership(
        evidence.module,
        evidence.images(evidence.pool),
        evidence.images(evidence.samples),
        evidence.weight_decay,
        evidence.samples_trained,
        places(evidence.samples, evidence.pool),
    )
    return Scores({"kkt_multiplier": plain(found_N)})


PROBE = Probe(
    config=KKTConfig,
    version=1,
    source="stationarity of training with weight decay (Haim et al. 2022), solved for multipliers",
    track="image",
    run=run,
    metrics=(
        Metric("kkt_multiplier", 0, tells="1 if the weights hold the sample, 0 if they do not"),
    ),
)
