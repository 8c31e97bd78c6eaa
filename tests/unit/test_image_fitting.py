"""Training of classifiers: what is minimised, how far it comes, and many at once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from distforget.image_config import FitConfig
from distforget.tracks.image.fitting import Labelled, fit, fit_many
from distforget.tracks.image.models import CNNConfig, MLPConfig, build
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
    assert curve[0].kkt_residual > 1 > 0.15 > curve[-1].kkt_residual
    assert curve[-1].kkt_residual == pytest.approx(relative_residual(model, train, 1e-3), rel=1e-3)
    assert curve[-1].accuracy == 1
    right: Tensor = model(held_out.images_NCHW).argmax(1) == held_out.labels_N
    assert curve[-1].held_out_accuracy == pytest.approx(right.double().mean().item())


@pytest.mark.parametrize(
    "config", [CONFIG, CNNConfig(image_shape=(1, 16, 16), channels=(4, 6), classes=4)]
)
def test_many_side_by_side_become_what_each_becomes_alone(config: MLPConfig | CNNConfig) -> None:
    models = [build(config, generator(seed)).double() for seed in range(3)]
    trains = [
        Labelled(t.images_NCHW.double(), t.labels_N)
        for t in (samples(count, seed) for seed, count in enumerate((5, 9, 7)))
    ]
    held_out = Labelled(samples(6, 9).images_NCHW.double(), samples(6, 9).labels_N)
    settings = FitConfig(steps=40, record_every=15)
    alone = copy.deepcopy(models)
    expected = [fit(m, t, settings, held_out) for m, t in zip(alone, trains, strict=True)]
    curves = fit_many(models, trains, settings, held_out)
    for model, single in zip(models, alone, strict=True):
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, single.get_parameter(name), rtol=0, atol=1e-8)
    for curve, single_curve in zip(curves, expected, strict=True):
        assert [p.step for p in curve] == [0, 15, 30, 40]
        for point, single_point in zip(curve, single_curve, strict=True):
            assert vars(point) == pytest.approx(vars(single_point), rel=1e-6)


def test_unequal_models_are_not_stacked() -> None:
    models = [build(c, generator(0)) for c in (CONFIG, CONFIG.model_copy(update={"hidden": (8,)}))]
    with pytest.raises(ValueError, match="2 models of 2 configs and 2 data sets"):
        fit_many(models, [samples(4, 0), samples(4, 1)], FitConfig(steps=1))


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        Labelled(torch.zeros(3, 1, 16, 16), torch.zeros(2, dtype=torch.long))
