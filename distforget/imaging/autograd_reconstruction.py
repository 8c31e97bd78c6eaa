"""Reconstructs training images from any network, including CNNs, with autograd.

Slower than `reconstruction` for an MLP by the cost of a second backward pass, and without its
restriction to a span, which a convolution's weights do not offer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distforget.image_config import ReconstructionConfig
from distforget.imaging import kkt
from distforget.imaging.models import Activation, Classifier
from distforget.imaging.reconstruction import (
    Reconstruction,
    candidate_labels,
    pixel_prior,
)


def reconstruct_by_autograd(
    model: Classifier,
    num_candidates: int,
    config: ReconstructionConfig,
    generator: torch.Generator,
    mean_CHW: Tensor | None = None,
    std_CHW: Tensor | None = None,
) -> Reconstruction:
    """Reconstruct candidates and multipliers; see `reconstruction.reconstruct`.

    One start; `config.span` and `config.restarts` are not used. ReLU is replaced by softplus,
    log(1 + exp(sharpness z))/sharpness, whose slope is the sigmoid of the other attack.
    """
    weight = next(model.parameters()).detach()
    shape = model.config.image_shape
    mean = (weight.new_zeros(shape) if mean_CHW is None else mean_CHW.to(weight))[None]
    std = (weight.new_ones(shape) if std_CHW is None else std_CHW.to(weight).expand(shape))[None]
    labels_N = candidate_labels(num_candidates, model.config.classes).to(weight.device)
    images = weight.new_empty(num_candidates, *shape).normal_(generator=generator)
    images = (config.start_scale * images).requires_grad_()
    sums = gradient_sums(model, images.detach() / std, labels_N, weight.new_ones(num_candidates))
    power = sum(float(g.detach().square().sum()) for g in sums)
    size = sum(float(p.detach().square().sum()) for p in model.parameters())
    start = config.start_share * (size / power) ** 0.5
    log_multipliers_N = weight.new_full((num_candidates,), start).log().requires_grad_()
    unknown = [images, log_multipliers_N]
    optimizer = torch.optim.Adam(unknown, lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    growth = config.sharpness_end / config.sharpness_start
    for step in range(config.steps):
        sharpness = config.sharpness_start * growth ** (step / config.steps)
        sums = gradient_sums(model, images / std, labels_N, log_multipliers_N.exp(), sharpness)
        loss = _distance(model, sums) + pixel_prior((images + mean).flatten(1), config)
        for tensor, grad in zip(unknown, torch.autograd.grad(loss, unknown), strict=True):
            tensor.grad = grad
        optimizer.step()
        schedule.step()
    found = images.detach()
    sums = gradient_sums(model, found / std, labels_N, log_multipliers_N.exp().detach())
    apart = sum(
        float((p - g).detach().square().sum())
        for p, g in zip(model.parameters(), sums, strict=True)
    )
    return Reconstruction(
        found + mean, log_multipliers_N.exp().detach(), labels_N, float((apart / size) ** 0.5)
    )


def gradient_sums(
    model: Classifier,
    images_NCHW: Tensor,
    labels_N: Tensor,
    multipliers_N: Tensor,
    sharpness: float | None = None,
) -> list[Tensor]:
    """sum_i lambda_i grad m_i by each parameter, with a graph (see `kkt`).

    Args:
        sharpness: of softplus in place of ReLU; None: ReLU.
    """
    activation: Activation = torch.relu if sharpness is None else nn.Softplus(beta=sharpness)
    logits_NK = model(images_NCHW, activation)
    signal_NK = multipliers_N[:, None] * kkt.output_signal(logits_NK, labels_N)
    return list(
        torch.autograd.grad(
            logits_NK, list(model.parameters()), grad_outputs=signal_NK, create_graph=True
        )
    )


def _distance(model: Classifier, sums: list[Tensor]) -> Tensor:
    """Sum over layers of |theta - G|^2 / |theta|^2, biases with their weights."""
    apart: dict[str, Tensor] = {}
    size: dict[str, Tensor] = {}
    for (name, parameter), total in zip(model.named_parameters(), sums, strict=True):
        layer = name.rpartition(".")[0]
        theta = parameter.detach()
        apart[layer] = apart.get(layer, theta.new_zeros(())) + (theta - total).square().sum()
        size[layer] = size.get(layer, theta.new_zeros(())) + theta.square().sum()
    return torch.stack([apart[layer] / size[layer] for layer in apart]).sum()
