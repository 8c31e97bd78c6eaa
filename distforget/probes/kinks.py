"""Kinks: hidden units of an MLP whose edge runs through a training sample."""

from __future__ import annotations

from typing import Literal

from distforget.parts import Part
from distforget.probes import ImageEvidence, Metric, Probe, Scores
from distforget.probes._images import against_unseen, plain


class KinksConfig(Part):
    """Units on whose edge a sample lies (MLPs alone)."""

    kind: Literal["kinks"] = "kinks"


def run(evidence: ImageEvidence, config: KinksConfig) -> Scores:
    """kinks and kink_closeness (see `imaging.kinks`), and p of the closeness."""
    from distforget.imaging import kinks
    from distforget.imaging.models import MLP

    if not isinstance(evidence.module, MLP):
        return Scores({})
    angles_NH, angles_MH = (
        kinks.angles(evidence.module, evidence.images(part).images_NCHW).cpu()
        for part in (evidence.samples, evidence.unseen)
    )
    if len(angles_MH):
        telling_H = kinks.telling_units(angles_MH)
        angles_NH, angles_MH = angles_NH[:, telling_H], angles_MH[:, telling_H]
    close_N, close_M = (kinks.closeness(angles) for angles in (angles_NH, angles_MH))
    _, p_N = against_unseen(evidence, close_N, close_M)
    values = {"kinks": kinks.count(angles_NH), "kink_closeness": close_N, "kink_p_value": p_N}
    return Scores({name: plain(value) for name, value in values.items()})


PROBE = Probe(
    config=KinksConfig,
    version=1,
    source="training holds samples on the edges of ReLUs, where the loss has a kink",
    track="image",
    run=run,
    metrics=(
        Metric(
            "kinks",
            0,
            tells="hidden units whose edge runs through the sample; almost none for never-trained "
            "samples, so a few are near proof that it was trained on, while none says little",
        ),
        Metric("kink_closeness"),
        Metric("kink_p_value", 0, 1, measures_nothing=True),
    ),
)
