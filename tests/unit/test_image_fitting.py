"""Training of classifiers: what is minimised, how far it comes, and many at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distforget.image_config import FitConfig
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import MLPConfig, build
from tests.strokes import strokes

CONFIG = MLPConfig(image_shape=(1, 16, 16), hidden=(32, 32), classes=4, bias="all")


def samples(count: int, seed: int) -> Labelled:
    images = strokes(count, seed)
    return Labelled(images - images.mean(0), torch.arange(count) % CONFIG.classes)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative_residual(model: nn.Module, train: Labelled, weight_decay: float) -> float:
    """|theta + grad/wd| / |theta|, parameter by parameter."""
    loss = nn.functional.cross_entropy(model(train.images_NCHW), train.labels_N)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    grad = torch.cat([g.flatten() for g in grads])
    return float((theta + grad / weight_decay).norm() / theta.norm())


def test_a_step_is_adams() -> None:
    model, train = build(CONFIG, generator(0)), samples(8, 0)
    before = [p.detach().clone() for p in model.parameters()]
    loss = nn.functional.cross_entropy(model(train.images_NCHW), train.labels_N)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    curve = fit(model, train, FitConfig(steps=1, learning_rate=0.01, weight_decay=0.1))
    for old, grad, new in zip(before, grads, model.parameters(), strict=True):
        total = grad + 0.1 * old  # Adam's first step is lr * g / (|g| + eps)
        expected = old - 0.01 * total / (total.abs() + 1e-8)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-4, atol=1e-6)
    assert curve[0].loss == pytest.approx(loss.item(), rel=1e-5)


def test_a_tiny_problem_becomes_stationary() -> None:
    model, train, held_out = build(CONFIG, generator(1)), samples(12, 1), samples(20, 2)
    config = FitConfig(steps=3000, weight_decay=1e-3, record_every=1000)
    curve = fit(model, train, config, held_out)
    assert [point.step for point in curve] == [0, 1000, 2000, 3000]
    assert curve[0].kkt_residual > 1 > 0.5 > curve[-1].kkt_residual
    assert curve[-1].kkt_residual == pytest.approx(relative_residual(model, train, 1e-3), rel=1e-3)
    assert curve[-1].accuracy == 1
    right: Tensor = model(held_out.images_NCHW).argmax(1) == held_out.labels_N
    assert curve[-1].held_out_accuracy == pytest.approx(right.double().mean().item())


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        Labelled(torch.zeros(3, 1, 16, 16), torch.zeros(2, dtype=torch.long))
