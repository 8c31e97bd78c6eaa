"""p-values against never-trained samples, by a loop and by their distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distforget.analysis.intervals import combined
from distforget.imaging.nulls import against_nulls


@pytest.mark.parametrize("among_nulls", [False, True])
def test_nulls_are_those_of_a_loop(among_nulls: bool) -> None:
    draw = np.random.default_rng(0)
    nulls, null_labels = draw.random(50).round(1), draw.integers(0, 3, 50)
    scores, labels = draw.random(30).round(1), draw.integers(0, 3, 30)
    itself: list[int | None] = [None] * 30
    if among_nulls:
        scores, labels, itself = nulls[:30], null_labels[:30], list(range(30))
    tensors = map(torch.from_numpy, (scores, labels, nulls, null_labels))
    mean_N, p_N = against_nulls(*tensors, itself)

    def contrast(value: float, label: int, without: int | None) -> float:
        of_class = [
            n
            for row, (n, of) in enumerate(zip(nulls, null_labels, strict=True))
            if of == label and row != without
        ]
        return value - float(np.mean(of_class))

    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        mine = contrast(score, label, itself[row])
        others = [
            contrast(n, of, number)
            for number, (n, of) in enumerate(zip(nulls, null_labels, strict=True))
            if number != itself[row]
        ]
        assert score - mean_N[row] == pytest.approx(mine)
        as_much = sum(other >= mine - 1e-9 for other in others)
        assert p_N[row] == pytest.approx((1 + as_much) / (1 + len(others)))


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_of_samples_like_the_nulls_no_more_than_one_in_twenty_is_significant(shift: float) -> None:
    """Also where classes differ in their means by much more than samples do."""
    draw = torch.Generator().manual_seed(0)
    labels, null_labels = torch.arange(4000) % 10, torch.arange(200) % 10
    found = [
        against_nulls(
            torch.rand(4000, generator=draw) + shift * labels, labels,
            torch.rand(200, generator=draw) + shift * null_labels, null_labels,
        )[1]
        for _ in range(20)
    ]  # fmt: skip
    assert 0.03 < float((torch.cat(found) < 0.05).double().mean()) <= 0.055


def test_p_falls_below_what_one_class_allows() -> None:
    labels = torch.arange(200) % 10
    _, p_N = against_nulls(torch.tensor([9.0]), labels[:1], torch.rand(200), labels)
    assert p_N.item() == pytest.approx(1 / 201)


def test_a_class_without_nulls_has_nothing_to_say() -> None:
    mean_N, p_N = against_nulls(
        torch.tensor([9.0, 9.0]), torch.tensor([1, 0]), torch.rand(9), torch.zeros(9).long()
    )
    assert mean_N.isnan().tolist() == [True, False]
    assert p_N[0] == 1
    assert p_N[1] == pytest.approx(0.1)


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_combined_p_values_hold_their_level_whether_or_not_they_depend(shared: float) -> None:
    draw = np.random.default_rng(0)
    common = draw.random((4000, 1))
    own = draw.random((4000, 5))
    found = np.array([combined(row) for row in np.where(shared, common, own)])
    for level in (0.01, 0.05):
        assert (found < level).mean() == pytest.approx(level, rel=0.3)


def test_combined_is_not_the_mean() -> None:
    assert combined(np.array([0.004, 0.004, 0.004])) == pytest.approx(0.004)
    assert combined(np.array([0.004, 0.5, 0.9])) < 0.02
    assert combined(np.array([0.004, 0.004, 1.0])) < 0.02
    assert combined(np.array([1.0, 0.5])) <= 1
