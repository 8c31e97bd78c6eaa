"""Kinks: angles by a naive loop, what they do not depend on, and whether training leaves any."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget.analysis.separation import auc
from distforget.imaging import kinks
from distforget.imaging.fitting import Labelled
from distforget.imaging.models import MLP, MLPConfig, build
from distforget.imaging.slopes import Weighed, free_slopes, residual
from tests.exact_points import exact_point
from tests.trained_strokes import CONFIG, Trained, trained_on_strokes

EXACT = exact_point()


def fresh(seed: int, **changes: object) -> MLP:
    model = build(CONFIG.model_copy(update=changes), torch.Generator().manual_seed(seed))
    assert isinstance(model, MLP)
    return model


@pytest.mark.parametrize("bias", ["first", "all", "none"])
def test_angles_are_those_of_a_loop(bias: str) -> None:
    model = fresh(0, hidden=(5, 3), bias=bias)
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5
    found = kinks.angles(model, images)
    for row, image in enumerate(images.double().flatten(1).tolist()):
        inputs, expected = image, []
        for layer in model.layers[:-1]:
            weights = layer.weight.double().tolist()
            biases = [0.0] * len(weights) if layer.bias is None else layer.bias.double().tolist()
            one = 0.0 if layer.bias is None else 1.0
            z = [math.fsum(w * x for w, x in zip(of_one, inputs, strict=True)) + b
                 for of_one, b in zip(weights, biases, strict=True)]  # fmt: skip
            size = math.sqrt(math.fsum(x * x for x in inputs) + one)
            expected += [
                abs(value) / (size * math.sqrt(math.fsum(w * w for w in of_one) + b * b))
                for value, of_one, b in zip(z, weights, biases, strict=True)
            ]
            inputs = [max(value, 0.0) for value in z]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_angles_do_not_depend_on_the_scale_of_weights(one: float, other: float, seed: int) -> None:
    model = fresh(seed, hidden=(8, 8)).double()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.layers[0].weight.mul_(one)
        scaled.layers[0].bias.mul_(one)
        scaled.layers[1].weight.mul_(other)
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        kinks.angles(scaled, images), kinks.angles(model, images), rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_on_edges_are_found_and_others_are_not(dtype: torch.dtype) -> None:
    model = copy.deepcopy(EXACT.model).to(dtype)
    draw = torch.Generator().manual_seed(3)
    others = torch.rand(50, 1, 1, EXACT.members.images_NCHW.shape[-1], generator=draw)
    on, off = (kinks.angles(model, part) for part in (EXACT.members.images_NCHW, others))
    assert kinks.count(on).tolist() == [EXACT.kinks] * 2
    assert kinks.closeness(on).min() > EXACT.kinks
    assert kinks.count(off).median() == 0
    assert kinks.closeness(off).median() < kinks.closeness(on).min()


def test_dead_units_tell_nothing() -> None:
    model = fresh(0, hidden=(6,))
    with torch.no_grad():
        model.layers[0].weight[:2] = 0
        model.layers[0].bias[:2] = 0
        model.layers[0].weight[2] = 0
    images = torch.rand(9, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    angles_NH = kinks.angles(model, images)
    assert angles_NH.isfinite().all()
    assert kinks.count(angles_NH).sum() == 0
    angles_NH[:6, 3] = 0
    assert kinks.telling_units(angles_NH).tolist() == [True, True, True, False, True, True]


def test_training_leaves_its_samples_on_kinks(strokes_trained: list[Trained]) -> None:
    inside, outside = (
        torch.cat([
            kinks.closeness(kinks.angles(one.model, part.images_NCHW))
            for one in strokes_trained for part in [getattr(one, name)]
        ])
        for name in ("members", "strangers")
    )  # fmt: skip
    assert auc(inside.numpy(), outside.numpy()) > 0.85


@pytest.fixture(scope="module")
def strokes_trained() -> list[Trained]:
    return trained_on_strokes()


# Slopes.


def multipliers() -> torch.Tensor:
    return torch.full((2,), EXACT.multiplier, dtype=torch.float64)


def test_free_slopes_are_those_of_the_exact_point() -> None:
    (slopes_2H,), _ = free_slopes(EXACT.model, Weighed(EXACT.members, multipliers()))
    units = EXACT.kinks
    expected = torch.ones_like(slopes_2H)
    expected[0, units:] = expected[1, :units] = EXACT.slope
    torch.testing.assert_close(slopes_2H, expected, rtol=1e-9, atol=0)


def test_the_exact_point_has_no_residual_but_with_fixed_slopes_it_has() -> None:
    assert residual(EXACT.model, EXACT.members, multipliers(), free=True) < 1e-6
    assert residual(EXACT.model, EXACT.members, multipliers()) > 0.1


def test_free_slopes_bring_training_samples_closer(strokes_trained: list[Trained]) -> None:
    for one in strokes_trained:
        weights = one.member_multipliers()
        free = residual(one.model, one.members, weights, free=True)
        assert free < residual(one.model, one.members, weights)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_freeing_slopes_never_takes_the_last_hidden_layer_away(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    config = MLPConfig(image_shape=(1, 1, 6), hidden=(4,), classes=2)
    model = build(config, draw).double()
    assert isinstance(model, MLP)
    samples = Labelled(torch.rand(3, 1, 1, 6, generator=draw).double(), torch.tensor([0, 1, 0]))
    with torch.no_grad():  # the first sample lies on the first unit's edge
        first = model.layers[0]
        first.bias[0] = -(first.weight[0] * samples.images_NCHW[0].flatten()).sum()
    weights = torch.rand(3, generator=draw).double()
    free = residual(model, samples, weights, free=True)
    assert free <= residual(model, samples, weights) + 1e-12
    ((slopes_NH,), _) = free_slopes(model, Weighed(samples, weights))
    assert 0 <= slopes_NH.min() <= slopes_NH.max() <= 1
