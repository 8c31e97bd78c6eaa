"""KKT membership and span scores on models whose training samples are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from distforget.image_config import FitConfig
from distforget.study import UsageError
from distforget.tracks.image.fitting import Labelled, fit
from distforget.tracks.image.membership import (
    kkt_membership,
    nonnegative_least_squares,
    span_scores,
)
from distforget.tracks.image.models import MLP, MLPConfig, build
from tests.strokes import strokes

WEIGHT_DECAY = 1e-3
CONFIG = MLPConfig(image_shape=(1, 16, 16), hidden=(64, 64), classes=4)
MEAN = strokes(300, 99).mean(0)


def labelled(count: int, seed: int) -> Labelled:
    return Labelled(strokes(count, seed) - MEAN, torch.arange(count) % CONFIG.classes)


MEMBERS, STRANGERS = labelled(16, 0), labelled(24, 1)


@pytest.fixture(scope="module")
def trained() -> MLP:
    model = build(CONFIG, torch.Generator().manual_seed(0))
    fit(model, MEMBERS, FitConfig(steps=3000, weight_decay=WEIGHT_DECAY))
    return model


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 6), st.integers(0, 10**6))
def test_least_squares_are_those_of_scipy(columns: int, more: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(columns + more, columns)), draw.normal(size=columns + more)
    a *= 10.0 ** draw.integers(-3, 4, size=columns)
    found, free = nonnegative_least_squares(a.T @ a, a.T @ b, draw.random(columns) < 0.5)
    expected, distance = nnls(a, b)
    assert np.linalg.norm(a @ found - b) == pytest.approx(distance, abs=1e-6)
    np.testing.assert_array_equal(found > 0, free & (found != 0))
    np.testing.assert_allclose(a @ found, a @ expected, atol=1e-4)


def test_members_have_the_multiplier_of_a_member(trained: MLP) -> None:
    share = kkt_membership(trained, MEMBERS, MEMBERS, WEIGHT_DECAY, 16, itself=range(16))
    assert share.median() == pytest.approx(1, abs=0.1)
    assert share.min() > 0.7


def test_strangers_have_none(trained: MLP) -> None:
    share = kkt_membership(trained, MEMBERS, STRANGERS, WEIGHT_DECAY, 16)
    assert share.median() < 0.05
    assert share.min() >= 0


def test_a_member_is_found_whether_or_not_it_is_left_out_of_a_list(trained: MLP) -> None:
    others = Labelled(MEMBERS.images_NCHW[1:], MEMBERS.labels_N[1:])
    first = Labelled(MEMBERS.images_NCHW[:1], MEMBERS.labels_N[:1])
    alone = kkt_membership(trained, others, first, WEIGHT_DECAY, 16)
    listed = kkt_membership(trained, MEMBERS, first, WEIGHT_DECAY, 16, itself=[0])
    torch.testing.assert_close(alone, listed, rtol=1e-6, atol=0)


def test_members_lie_in_the_span_of_the_first_layer(trained: MLP) -> None:
    inside = span_scores(trained, MEMBERS.images_NCHW, 16)
    outside = span_scores(trained, STRANGERS.images_NCHW, 16)
    assert inside.min() > outside.max()
    assert inside.max() <= 1 + 1e-9


def test_the_span_of_all_directions_holds_everything(trained: MLP) -> None:
    model = build(CONFIG.model_copy(update={"hidden": (300,)}), torch.Generator().manual_seed(1))
    assert isinstance(model, MLP)
    scores = span_scores(model, STRANGERS.images_NCHW, 257)
    torch.testing.assert_close(scores, torch.ones(24).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("itself", [[0], [0] * 23 + [16]])
def test_rows_that_are_not_there_are_refused(trained: MLP, itself: list[int]) -> None:
    with pytest.raises(UsageError, match="24 queries None or a row of the 16 known"):
        kkt_membership(trained, MEMBERS, STRANGERS, WEIGHT_DECAY, 16, itself)
