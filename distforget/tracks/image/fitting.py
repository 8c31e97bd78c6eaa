"""Training of small classifiers to a measured stationary point, one or many side by side.

What is minimised is L = mean cross-entropy + (wd/2) |theta|^2 over all samples at once. Where L is
stationary, theta = -grad(cross-entropy)/wd is a sum over the training samples (the KKT equations);
how far it is from that is written down, since attacks on the weights solve these equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from distforget.image_config import FitConfig
from distforget.tracks.image.models import Classifier


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
    """Of the training samples, 0 to 1."""
    kkt_residual: float
    """|theta + grad(cross-entropy)/wd| / |theta|: 0 at a stationary point."""
    held_out_accuracy: float | None


def fit(
    model: Classifier, train: Labelled, config: FitConfig, held_out: Labelled | None = None
) -> list[Point]:
    """Train the model in place; its curve, from step 0 to the end, in steps of `record_every`."""
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def losses() -> tuple[Tensor, Tensor]:
        logits_NK = model(train.images_NCHW)
        loss = cross_entropy(logits_NK, train.labels_N)
        return loss[None], _accuracy(logits_NK, train.labels_N)[None]

    def held_out_accuracy() -> list[float | None]:
        if held_out is None:
            return [None]
        return [float(_accuracy(model(held_out.images_NCHW), held_out.labels_N))]

    norms = {name: tuple(range(p.ndim)) for name, p in weights.items()}
    return _descend(weights, losses, held_out_accuracy, config, norms)[0]


def fit_many(
    models: Sequence[Classifier],
    trains: Sequence[Labelled],
    config: FitConfig,
    held_out: Labelled | None = None,
) -> list[list[Point]]:
    """Train models of equal shape in place and side by side, each on its own data of any size.

    What each becomes is what :func:`fit` makes of it, within floating-point noise. Smaller data
    sets are padded; padding has weight 0.

    Raises:
        ValueError: no models, not as many data sets, or models of different shapes.
    """
    if not models or len(models) != len(trains) or len({m.config for m in models}) > 1:
        raise ValueError(
            f"fit_many takes models of one config, each with its data: got {len(models)} models of "
            f"{len({m.config for m in models})} configs and {len(trains)} data sets"
        )
    model = models[0]
    stacked: dict[str, Tensor] = {
        name: nn.Parameter(torch.stack([m.get_parameter(name).detach() for m in models]))
        for name, _ in model.named_parameters()
    }
    images_MNCHW = _padded([t.images_NCHW for t in trains])
    labels_MN = _padded([t.labels_N for t in trains])
    share_MN = _padded([torch.full_like(t.images_NCHW[:, 0, 0, 0], 1 / len(t.labels_N))
                        for t in trains])  # fmt: skip

    def logits(weights: dict[str, Tensor], images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = functional_call(model, weights, (images_NCHW,))
        return logits_NK

    def losses() -> tuple[Tensor, Tensor]:
        logits_MNK = vmap(logits)(stacked, images_MNCHW)
        loss_MN = cross_entropy(logits_MNK.mT, labels_MN, reduction="none")
        right_MN = (logits_MNK.argmax(-1) == labels_MN).to(share_MN.dtype)
        return (loss_MN * share_MN).sum(1), (right_MN * share_MN).sum(1)

    def held_out_accuracy() -> list[float | None]:
        if held_out is None:
            return [None] * len(models)
        logits_MNK = vmap(logits, in_dims=(0, None))(stacked, held_out.images_NCHW)
        return [float(_accuracy(logits_NK, held_out.labels_N)) for logits_NK in logits_MNK]

    norms = {name: tuple(range(1, p.ndim)) for name, p in stacked.items()}
    curves = _descend(stacked, losses, held_out_accuracy, config, norms)
    with torch.no_grad():
        for number, trained in enumerate(models):
            for name, parameter in trained.named_parameters():
                parameter.copy_(stacked[name][number])
    return curves


def _descend(
    weights: dict[str, Tensor],
    losses: Callable[[], tuple[Tensor, Tensor]],
    held_out_accuracy: Callable[[], list[float | None]],
    config: FitConfig,
    norm_axes: dict[str, tuple[int, ...]],
) -> list[list[Point]]:
    """Take the steps; the curve of each of the M models whose losses and accuracies (M,) are given.

    `norm_axes` are those axes of a weight that belong to one model.
    """
    optimizer = torch.optim.Adam(
        weights.values(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    points: list[list[Point]] = []
    for step in range(config.steps + 1):
        optimizer.zero_grad()
        loss_M, accuracy_M = losses()
        torch.autograd.backward(loss_M.sum())
        if step % config.record_every == 0 or step == config.steps:
            with torch.no_grad():
                residual_M = _kkt_residual(weights, config.weight_decay, norm_axes)
                values = (loss_M, accuracy_M, residual_M.expand_as(loss_M))
                numbers = (value.tolist() for value in values)
                points.append(
                    [Point(step, *row) for row in zip(*numbers, held_out_accuracy(), strict=True)]
                )
        if step < config.steps:
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    return [list(curve) for curve in zip(*points, strict=True)]


def _kkt_residual(
    weights: dict[str, Tensor], weight_decay: float, norm_axes: dict[str, tuple[int, ...]]
) -> Tensor:
    """|theta + grad/wd| / |theta| of each model; the gradients are in place."""
    apart, size = torch.zeros(()), torch.zeros(())
    for name, parameter in weights.items():
        assert parameter.grad is not None
        difference = parameter + parameter.grad / weight_decay
        apart = apart + difference.double().square().sum(norm_axes[name])
        size = size + parameter.double().square().sum(norm_axes[name])
    return (apart / size).sqrt()


def _accuracy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    return (logits_NK.argmax(-1) == labels_N).double().mean()


def _padded(parts: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
