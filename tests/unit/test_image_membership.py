"""KKT membership and span scores: on an exact solution by hand, and on classifiers in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from distforget.analysis.separation import auc
from distforget.errors import UsageError
from distforget.imaging import kinks, kkt, membership
from distforget.imaging.fitting import Labelled
from distforget.imaging.membership import (
    kkt_membership,
    margin_gradients,
    nonnegative_least_squares,
    span_scores,
)
from distforget.imaging.models import MLP, CNNConfig, build
from tests.exact_points import exact_point
from tests.trained_strokes import (
    CONFIG,
    MEMBERS,
    WEIGHT_DECAY,
    Trained,
    labelled,
    trained_on_strokes,
)

EXACT = exact_point()
DECAY = float(kkt.member_multipliers(EXACT.model, EXACT.members, 1.0, 2)[0]) / EXACT.multiplier
"""With which the multipliers are those of a stationary point."""
OTHERS = Labelled(
    torch.rand(
        20, *EXACT.members.images_NCHW.shape[1:], generator=torch.Generator().manual_seed(5)
    ),
    torch.arange(20) % 2,
)


@pytest.fixture(scope="module")
def trained() -> list[Trained]:
    return trained_on_strokes()


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


def test_members_of_an_exact_solution_have_the_multiplier_1_and_others_0() -> None:
    members = kkt_membership(EXACT.model, EXACT.members, EXACT.members, DECAY, 2, [0, 1])
    torch.testing.assert_close(members, torch.ones(2).double(), rtol=1e-5, atol=0)
    assert kkt_membership(EXACT.model, EXACT.members, OTHERS, DECAY, 2).max() < 1e-6


def test_a_member_that_is_not_listed_stands_out() -> None:
    other, first = (
        Labelled(EXACT.members.images_NCHW[[row]], EXACT.members.labels_N[[row]]) for row in (1, 0)
    )
    alone = kkt_membership(EXACT.model, other, first, DECAY, 2).item()
    assert 0.5 < alone < 1.5
    assert kkt_membership(EXACT.model, other, OTHERS, DECAY, 2).max() < alone / 2


def test_members_in_training_have_the_multiplier_of_a_member(trained: list[Trained]) -> None:
    inside, outside = [], []
    for one in trained:
        both = Labelled(
            torch.cat([one.members.images_NCHW, one.strangers.images_NCHW]),
            torch.cat([one.members.labels_N, one.strangers.labels_N]),
        )
        count = len(both.labels_N)
        found = kkt_membership(one.model, both, both, WEIGHT_DECAY, MEMBERS, range(count))
        assert found.min() >= 0
        inside += found[:MEMBERS].tolist()
        outside += found[MEMBERS:].tolist()
    assert np.median(inside) == pytest.approx(1, abs=0.1)
    assert np.median(outside) < 0.05
    assert auc(np.array(inside), np.array(outside)) > 0.95


def test_members_lie_in_the_span_of_a_first_layer_made_of_them() -> None:
    members, strangers = labelled(16, 0).images_NCHW, labelled(24, 1).images_NCHW
    model = build(CONFIG, torch.Generator().manual_seed(0)).double()
    assert isinstance(model, MLP)
    draw = torch.Generator().manual_seed(1)
    share_HN = torch.randn(CONFIG.hidden[0], 16, generator=draw).double()
    with torch.no_grad():
        model.layers[0].weight.copy_(share_HN @ members.double().flatten(1))
        model.layers[0].bias.copy_(share_HN.sum(1))
    inside = span_scores(model, members, 16)
    torch.testing.assert_close(inside, torch.ones(16).double(), rtol=0, atol=1e-9)
    assert span_scores(model, strangers, 16).max() < 0.99
    assert span_scores(model, members, 12).min() < 0.99


def test_members_in_training_lie_closer_to_the_span(trained: list[Trained]) -> None:
    inside, outside = (
        torch.cat([span_scores(one.model, getattr(one, name).images_NCHW, 16) for one in trained])
        for name in ("members", "strangers")
    )
    assert auc(inside.numpy(), outside.numpy()) > 0.9


def test_the_span_of_all_directions_holds_everything() -> None:
    model = build(CONFIG.model_copy(update={"hidden": (300,)}), torch.Generator().manual_seed(1))
    assert isinstance(model, MLP)
    scores = span_scores(model, labelled(24, 1).images_NCHW, 257)
    torch.testing.assert_close(scores, torch.ones(24).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("itself", [[0], [0] * 19 + [2]])
def test_rows_that_are_not_there_are_refused(itself: list[int]) -> None:
    with pytest.raises(UsageError, match="20 queries None or a row of the 2 known"):
        kkt_membership(EXACT.model, EXACT.members, OTHERS, DECAY, 2, itself)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_gradients_of_margins_are_those_of_autograd(kind: str) -> None:
    config = CONFIG if kind == "mlp" else CNNConfig(image_shape=(1, 16, 16), channels=(3, 4))
    model = build(config, torch.Generator().manual_seed(0)).double()
    some = labelled(5, 3)
    found = margin_gradients(model, some)
    for row, (image, label) in enumerate(zip(some.images_NCHW, some.labels_N, strict=True)):
        (logits_K,) = model(image[None].double())
        rest = torch.cat([logits_K[:label], logits_K[label + 1 :]])
        margin = logits_K[label] - (rest.detach().softmax(0) * rest).sum()
        wanted = torch.autograd.grad(margin, list(model.parameters()))
        torch.testing.assert_close(found[row], torch.cat([g.flatten() for g in wanted]))


def test_gradients_one_by_one_tell_what_products_of_layers_do() -> None:
    """Where no sample lies on a kink, as in fresh weights."""
    small = CONFIG.model_copy(update={"hidden": (6, 5)})
    model = build(small, torch.Generator().manual_seed(0)).double()
    assert isinstance(model, MLP)
    known, asked = labelled(6, 3), labelled(5, 4)
    for part in (known, asked):
        assert kinks.angles(model, part.images_NCHW).min() > 2 * kinks.ON_THE_EDGE
    members_Q = torch.ones(5).double()
    quick = membership._products(model, known, asked, members_Q, [None] * 5)
    slow = membership._products_by_autograd(model, known, asked)
    for one, other in zip(quick, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
