"""How much of a sample lies in the span of an MLP's first layer, as training samples do."""

from __future__ import annotations

from typing import Literal

from distforget.parts import Part
from distforget.probes import ImageEvidence, Metric, Probe, Scores
from distforget.probes._images import plain


class SpanConfig(Part):
    """The part of a sample in the span of the first layer (MLPs alone)."""

    kind: Literal["span"] = "span"


def run(evidence: ImageEvidence, config: SpanConfig) -> Scores:
    """span_score, see `imaging.membership.span_scores`."""
    from distforget.imaging.membership import span_scores
    from distforget.imaging.models import MLP

    if not isinstance(evidence.module, MLP):
        return Scores({})
    images_NCHW = evidence.images(evidence.samples).images_NCHW
    found_N = span_scores(evidence.module, images_NCHW, evidence.samples_trained)
    return Scores({"span_score": plain(found_N)})


PROBE = Probe(
    config=SpanConfig,
    version=1,
    source="weight decay leaves in the first layer only what training samples span",
    track="image",
    run=run,
    metrics=(
        Metric(
            "span_score",
            0,
            1,
            tells="1 if the sample lies in what the first layer was trained on",
        ),
    ),
)
