"""The loss of a sample, which is low if the classifier was trained on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distforget.parts import Part
from distforget.probes import ImageEvidence, Metric, Probe, Scores
from distforget.probes._images import against_unseen, plain

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


class LossConfig(Part):
    """Loss and probability of a sample's class."""

    kind: Literal["loss"] = "loss"


def run(evidence: ImageEvidence, config: LossConfig) -> Scores:
    """label_probability p(class|image), loss its negative logarithm, and p of the loss.

    The p-value is that of a loss as low among never-trained samples, see `nulls.against_nulls`.
    """
    loss_N, loss_M = (_loss(evidence, part) for part in (evidence.samples, evidence.unseen))
    # Of losses near 0 only the logarithm can tell classes' means apart from their tails.
    _, p_N = against_unseen(evidence, -loss_N.log(), -loss_M.log())
    values = {"loss": loss_N, "label_probability": (-loss_N).exp(), "loss_p_value": p_N}
    return Scores({name: plain(value) for name, value in values.items()})


def _loss(evidence: ImageEvidence, samples: pa.Table) -> Tensor:
    """Negative log-likelihood of the classes in nats: (N,), float64 and never quite 0."""
    import torch
    from torch.nn.functional import cross_entropy

    if not len(samples):
        return torch.zeros(0, dtype=torch.float64)
    labelled = evidence.images(samples)
    with torch.no_grad():
        logits_NK = evidence.module(labelled.images_NCHW).double()
    loss_N = cross_entropy(logits_NK, labelled.labels_N, reduction="none")
    return loss_N.clamp(min=torch.finfo(torch.float64).tiny).cpu()


PROBE = Probe(
    config=LossConfig,
    version=1,
    source="loss of the true class; Yeom et al. 2018 use it to tell members",
    track="image",
    run=run,
    metrics=(
        Metric("loss", 0, falls=True), Metric("label_probability", 0, 1),
        Metric("loss_p_value", 0, 1, measures_nothing=True),
    ),
)  # fmt: skip
