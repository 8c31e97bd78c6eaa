"""Training of small classifiers to a measured stationary point.

What is minimised is L = mean cross-entropy + (wd/2) |theta|^2 over all samples at once. Where L is
stationary, theta = -grad(cross-entropy)/wd is a sum over the training samples (the KKT equations);
how far it is from that is written down, since attacks on the weights solve these equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distforget.image_config import FitConfig
from distforget.imaging.models import Classifier


@dataclass(frozen=True)
class Labelled:
    """Images as the model takes them (the mean image subtracted) and their classes."""

    images_NCHW: Tensor
    labels_N: Tensor

    def __post_init__(self) -> None:
        if len(self.images_NCHW) != len(self.labels_N) or not len(self.labels_N):
            raise ValueError(
                f"{len(self.images_NCHW)} images and {len(self.labels_N)} labels; there must be as "
                "many of both, and at least one"
            )


@dataclass(frozen=True)
class Point:
    """The state of a model after some steps."""

    step: int
    loss: float
    """Mean cross-entropy of the training samples, without the weight decay, in nats."""
    accuracy: float
    """Accuracy on the training samples, 0 to 1."""
    kkt_residual: float
    """|theta + grad(cross-entropy)/wd| / |theta|: 0 at a stationary point."""
    held_out_accuracy: float | None


def fit(
    model: Classifier, train: Labelled, config: FitConfig, held_out: Labelled | None = None
) -> list[Point]:
    """Train the model in place and return its curve, with a point every `record_every` steps.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    points = []
    for step in range(config.steps + 1):
        optimizer.zero_grad()
        logits_NK = model(train.images_NCHW)
        loss = cross_entropy(logits_NK, train.labels_N)
        torch.autograd.backward(loss)
        if step % config.record_every == 0 or step == config.steps:
            known = float(loss.detach())
            if not math.isfinite(known):
                raise FloatingPointError(
                    f"training diverged by step {step} (loss {known}); "
                    "lower image.fit.learning_rate"
                )
            points.append(
                Point(
                    step,
                    known,
                    _accuracy(logits_NK, train.labels_N),
                    _kkt_residual(model, config.weight_decay),
                    None
                    if held_out is None
                    else _accuracy(model(held_out.images_NCHW), held_out.labels_N),
                )
            )
        if step < config.steps:
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    return points


@torch.no_grad()
def _kkt_residual(model: Classifier, weight_decay: float) -> float:
    """|theta + grad/wd| / |theta|; the gradients are in place."""
    apart, size = torch.zeros(()), torch.zeros(())
    for parameter in model.parameters():
        assert parameter.grad is not None
        apart = apart + (parameter + parameter.grad / weight_decay).double().square().sum()
        size = size + parameter.double().square().sum()
    return float((apart / size).sqrt())


def _accuracy(logits_NK: Tensor, labels_N: Tensor) -> float:
    return float((logits_NK.argmax(-1) == labels_N).double().mean())
