"""The attack's equations against autograd and naive loops; what it reads out of a tiny model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distforget.analysis.separation import auc
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.imaging import kkt, reconstruction
from distforget.imaging.autograd_reconstruction import (
    gradient_sums,
    reconstruct_by_autograd,
)
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import MLP, CNNConfig, MLPConfig, build
from distforget.imaging.reconstruction import (
    candidate_labels,
    pixel_prior,
    pixel_prior_gradient,
    reconstruct,
)
from distforget.imaging.ssim import best_matches
from tests.strokes import strokes


def margins(model: MLP, images_ND: Tensor, labels_N: Tensor) -> list[Tensor]:
    """Own logit minus the others, weighted by their softmax, which is held fixed."""
    found = []
    for logits_K, label in zip(model(images_ND), labels_N.tolist(), strict=True):
        others = torch.cat([logits_K[:label], logits_K[label + 1 :]])
        found.append(logits_K[label] - (others.softmax(0).detach() * others).sum())
    return found


def gradients(model: MLP, images_ND: Tensor, labels_N: Tensor) -> list[list[Tensor]]:
    """Of each margin by each parameter."""
    return [
        list(torch.autograd.grad(margin, list(model.parameters()), retain_graph=True))
        for margin in margins(model, images_ND, labels_N)
    ]


def problem(bias: str, hidden: tuple[int, ...], seed: int) -> tuple[MLP, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    config = MLPConfig.model_validate(
        {"image_shape": (1, 3, 4), "hidden": hidden, "classes": 4, "bias": bias}
    )
    model = build(config, generator).double()
    assert isinstance(model, MLP)
    images_ND = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    multipliers_N = torch.rand(6, generator=generator, dtype=torch.float64)
    return model, images_ND, torch.arange(6) % 4, multipliers_N


problems = (
    st.sampled_from(["first", "all", "none"]),
    st.sampled_from([(5,), (7, 6), (6, 5, 7)]),
    st.integers(0, 10**6),
)


@settings(max_examples=25, deadline=None)
@given(*problems)
def test_the_sum_of_gradients_is_autograds(bias: str, hidden: tuple[int, ...], seed: int) -> None:
    model, images_ND, labels_N, multipliers_N = problem(bias, hidden, seed)
    factors = kkt.margin_factors(model, images_ND, labels_N, multipliers_N)
    expected = torch.autograd.grad(
        (multipliers_N * torch.stack(margins(model, images_ND, labels_N))).sum(),
        list(model.parameters()),
    )
    found = []
    for layer, factor in zip(kkt.linear_layers(model), factors, strict=True):
        found.append(factor.signal_NO.T @ factor.input_NI)
        found += [] if layer.bias is None else [factor.signal_NO.sum(0)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(*problems)
def test_the_loss_is_a_naive_loops(bias: str, hidden: tuple[int, ...], seed: int) -> None:
    model, images_ND, labels_N, multipliers_N = problem(bias, hidden, seed)
    found = kkt.squared_distances(
        model, kkt.margin_factors(model, images_ND, labels_N, multipliers_N)
    )
    by_sample = gradients(model, images_ND, labels_N)
    apart, size = [0.0] * len(found), [0.0] * len(found)
    for number, (name, theta) in enumerate(model.named_parameters()):
        layer = int(name.split(".")[1])
        total = sum(m * g[number] for m, g in zip(multipliers_N, by_sample, strict=True))
        apart[layer] += (theta.detach() - total).square().sum().item()
        size[layer] += theta.detach().square().sum().item()
    expected = [a / s for a, s in zip(apart, size, strict=True)]
    assert [f.item() for f in found] == pytest.approx(expected, abs=1e-8)


@settings(max_examples=15, deadline=None)
@given(*problems)
def test_inner_products_are_those_of_whole_gradients(
    bias: str, hidden: tuple[int, ...], seed: int
) -> None:
    model, images_ND, labels_N, _ = problem(bias, hidden, seed)
    factors = kkt.margin_factors(model, images_ND, labels_N, torch.ones(6, dtype=torch.float64))
    flat_NP = torch.stack(
        [torch.cat([g.flatten() for g in row]) for row in gradients(model, images_ND, labels_N)]
    )
    theta_P = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(kkt.gram(model, factors, factors), flat_NP @ flat_NP.T)
    torch.testing.assert_close(kkt.projections(model, factors), flat_NP @ theta_P)


@settings(max_examples=15, deadline=None)
@given(*problems)
def test_autograds_sums_are_the_analytic_ones(
    bias: str, hidden: tuple[int, ...], seed: int
) -> None:
    model, images_ND, labels_N, multipliers_N = problem(bias, hidden, seed)
    factors = kkt.margin_factors(model, images_ND, labels_N, multipliers_N)
    sums = gradient_sums(model, images_ND, labels_N, multipliers_N)
    analytic = {f"layers.{i}.weight": f.signal_NO.T @ f.input_NI for i, f in enumerate(factors)}
    analytic |= {f"layers.{i}.bias": f.signal_NO.sum(0) for i, f in enumerate(factors)}
    for (name, _), total in zip(model.named_parameters(), sums, strict=True):
        torch.testing.assert_close(total.detach(), analytic[name].detach(), rtol=0, atol=1e-8)


def test_the_attack_on_a_cnn_comes_closer_to_its_weights() -> None:
    config = CNNConfig(image_shape=(1, 16, 16), channels=(6, 8), classes=4)
    model = build(config, torch.Generator().manual_seed(0))
    images = strokes(8, 0)
    mean = images.mean(0)
    fit(model, Labelled(images - mean, torch.arange(8) % 4), FitConfig(steps=300))
    residuals = [
        reconstruct_by_autograd(
            model, 16, ReconstructionConfig(steps=steps), torch.Generator().manual_seed(1), mean
        ).residual
        for steps in (1, 100)
    ]
    assert residuals[1] < 0.8 * residuals[0]


def test_weights_are_the_sum_where_training_is_stationary() -> None:
    images = strokes(12, 0).double()
    train = Labelled(images - images.mean(0), torch.arange(12) % 4)
    model = build(MLPConfig(image_shape=(1, 16, 16), hidden=(32, 32), classes=4),
                  torch.Generator().manual_seed(0)).double()  # fmt: skip
    assert isinstance(model, MLP)
    curve = fit(model, train, FitConfig(steps=600, weight_decay=1e-3))
    chance_N = model(train.images_NCHW).softmax(1)[torch.arange(12), train.labels_N].detach()
    multipliers_N = (1 - chance_N) / (1e-3 * 12)
    factors = kkt.margin_factors(model, train.images_NCHW.flatten(1), train.labels_N, multipliers_N)
    distances = kkt.squared_distances(model, factors)
    layers = kkt.linear_layers(model)
    apart = [
        float((d * kkt.squared_norm(la)).detach()) for d, la in zip(distances, layers, strict=True)
    ]
    size = sum(float(p.square().sum()) for p in model.parameters())
    assert (sum(apart) / size) ** 0.5 == pytest.approx(curve[-1].kkt_residual, rel=1e-3)


def test_the_prior_counts_pixels_out_of_range_and_bright_ones() -> None:
    config = ReconstructionConfig(range_weight=2, sparse_weight=3, sparse_width=0.5)
    pixels = torch.tensor([[-1.0, 0.0, 0.5, 3.0]])
    # beyond: 1, 0, 0, 2; |pixel|/0.5: 2, 0, 1, 6
    bright = torch.tensor([3.0, 1, 2, 7]).log().mean()
    expected = 2 * (1 + 4) / 4 + 3 * bright.item()
    assert pixel_prior(pixels, config).item() == pytest.approx(expected)


@pytest.mark.parametrize("sparse_weight", [0, 3])
def test_the_priors_gradient_is_autograds(sparse_weight: float) -> None:
    config = ReconstructionConfig(range_weight=2, sparse_weight=sparse_weight, sparse_width=0.5)
    pixels = 2 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels.requires_grad_()
    (expected,) = torch.autograd.grad(pixel_prior(pixels, config), pixels)
    torch.testing.assert_close(pixel_prior_gradient(pixels.detach(), config), expected)


@settings(max_examples=15, deadline=None)
@given(*problems)
def test_on_a_span_the_equations_are_the_models_less_what_lies_outside(
    bias: str, hidden: tuple[int, ...], seed: int
) -> None:
    model, images_ND, labels_N, multipliers_N = problem(bias, hidden, seed)
    basis_KD = torch.linalg.qr(images_ND[:4].T).Q.T
    coordinates_NK = images_ND @ basis_KD.T
    inner = kkt.on_span(model, basis_KD)
    here, there = (
        kkt.squared_distances(m, kkt.margin_factors(m, inputs, labels_N, multipliers_N))
        for m, inputs in ((inner, coordinates_NK), (model, coordinates_NK @ basis_KD))
    )
    first, whole = kkt.linear_layers(inner)[0], kkt.linear_layers(model)[0]
    outside = kkt.squared_norm(whole) - kkt.squared_norm(first)
    apart = here[0] * kkt.squared_norm(first) + outside
    torch.testing.assert_close(apart, there[0] * kkt.squared_norm(whole))
    torch.testing.assert_close(here[1:], there[1:])


def test_classes_are_spread_evenly() -> None:
    assert candidate_labels(6, 4).tolist() == [0, 1, 2, 3, 0, 1]


@dataclass(frozen=True)
class Trained:
    """A model of ten strokes, those strokes, and the pool's mean."""

    model: MLP
    images: Tensor
    mean: Tensor


@pytest.fixture(scope="module")
def several() -> list[Trained]:
    found = []
    for seed in range(3):
        images, mean = strokes(10, 5 + seed), strokes(300, 60).mean(0)
        model = build(MLPConfig(image_shape=(1, 16, 16), hidden=(128, 128), classes=5),
                      torch.Generator().manual_seed(3 + seed))  # fmt: skip
        assert isinstance(model, MLP)
        fit(model, Labelled(images - mean, torch.arange(10) % 5), FitConfig(steps=1000))
        found.append(Trained(model, images, mean))
    return found


@pytest.fixture
def trained(several: list[Trained]) -> Trained:
    return several[0]


def test_training_images_are_found_and_others_are_not(several: list[Trained]) -> None:
    config = ReconstructionConfig(steps=400)
    members, strangers = [], []
    for one in several:
        found = reconstruct(one.model, 20, config, torch.Generator().manual_seed(0), one.mean)
        members += best_matches(found.images_NCHW, one.images, one.mean).ssim_M.tolist()
        others = best_matches(found.images_NCHW, strokes(40, 70), one.mean).ssim_M
        strangers += others.tolist()
    assert np.median(members) > 0.7
    assert auc(np.array(members), np.array(strangers)) > 0.95


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_best_of_several_starts_is_kept(
    best: int, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReconstructionConfig(steps=40, restarts=3, range_weight=0, sparse_weight=0)
    starts = [
        reconstruct(
            trained.model, 20, config.model_copy(update={"restarts": 1}), draw, trained.mean
        )
        for draw in [torch.Generator().manual_seed(2)]
        for _ in range(3)
    ]
    worth = iter([float(start != best) for start in range(3)])
    known: dict[int, float] = {}

    def objective(attempt: object) -> float:
        if id(attempt) not in known:
            known[id(attempt)] = next(worth)
        return known[id(attempt)]

    monkeypatch.setattr(reconstruction._Attempt, "objective", objective)
    kept = reconstruct(trained.model, 20, config, torch.Generator().manual_seed(2), trained.mean)
    assert torch.equal(kept.images_NCHW, starts[best].images_NCHW)


def test_equal_generators_find_equal_images(trained: Trained) -> None:
    model, mean = trained.model, trained.mean
    config = ReconstructionConfig(steps=20)
    first, second = (
        reconstruct(model, 12, config, torch.Generator().manual_seed(1), mean) for _ in range(2)
    )
    assert torch.equal(first.images_NCHW, second.images_NCHW)
    assert first.images_NCHW.shape == (12, 1, 16, 16)
    assert first.multipliers.min() > 0


def test_the_dtype_is_the_models(trained: Trained) -> None:
    model, mean = trained.model, trained.mean
    exact = MLP(model.config).double()
    exact.load_state_dict(nn.Module.state_dict(model))
    found = reconstruct(
        exact, 10, ReconstructionConfig(steps=2), torch.Generator().manual_seed(1), mean
    )
    assert found.images_NCHW.dtype == found.multipliers.dtype == torch.float64
