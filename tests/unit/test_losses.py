"""Losses against plain float64 Python loops, at the extremes and over shards."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distforget import losses

Batch = tuple[Tensor, Tensor, Tensor]
"""Logits (B, T, V), the reference's log-probabilities (B, T, V), labels (B, T)."""


def make(B: int, T: int, V: int, scale: float, seed: int, answer: float = 0.6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, V, generator=generator, dtype=torch.float64) * scale
    reference = torch.randn(B, T, V, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, V, (B, T), generator=generator)
    labels[torch.rand(B, T, generator=generator) > answer] = -100
    return logits, reference.log_softmax(-1), labels


batches = st.builds(
    make,
    B=st.integers(1, 4),
    T=st.integers(1, 6),
    V=st.integers(1, 7),
    scale=st.sampled_from([0.1, 1.0, 10.0, 300.0]),
    seed=st.integers(0, 2**31),
    answer=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
quickly = settings(max_examples=50, deadline=None)


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = math.fsum(math.exp(x - top) for x in row)
    return [x - top - math.log(total) for x in row]


def naive_answers(logits: Tensor, labels: Tensor) -> list[list[float]]:
    """Per sample, log p of each answer token."""
    return [
        [
            log_softmax(logits[b, t].tolist())[int(labels[b, t + 1])]
            for t in range(labels.shape[1] - 1)
            if int(labels[b, t + 1]) != -100
        ]
        for b in range(labels.shape[0])
    ]


def naive_nll(logits: Tensor, labels: Tensor) -> float:
    tokens = [token for sample in naive_answers(logits, labels) for token in sample]
    return -math.fsum(tokens) / max(len(tokens), 1)


def naive_npo(logprobs: list[float], reference: list[float], beta: float) -> float:
    total = 0.0
    for theta, theta_0 in zip(logprobs, reference, strict=True):
        x = beta * (theta - theta_0)
        total += 2 / beta * (math.log1p(math.exp(x)) if x < 30 else x + math.log1p(math.exp(-x)))
    return total / len(logprobs)


def naive_kl(logits: Tensor, reference: Tensor, labels: Tensor) -> float:
    kls = []
    for b in range(labels.shape[0]):
        for t in range(labels.shape[1] - 1):
            if int(labels[b, t + 1]) != -100:
                theta = log_softmax(logits[b, t].tolist())
                theta_0 = reference[b, t].tolist()
                kls.append(
                    math.fsum(
                        math.exp(p) * (p - q)
                        for p, q in zip(theta_0, theta, strict=True)
                        if math.exp(p) > 0
                    )
                )
    return math.fsum(kls) / max(len(kls), 1)


@given(batches)
@quickly
def test_answer_logprobs_is_the_loop(batch: Batch) -> None:
    logits, _, labels = batch
    expected = torch.tensor([sum(x) for x in naive_answers(logits, labels)], dtype=torch.float64)
    torch.testing.assert_close(
        losses.answer_logprobs(logits, labels), expected, rtol=1e-8, atol=1e-8
    )


@given(batches)
@quickly
def test_answer_nll_is_the_loop(batch: Batch) -> None:
    logits, _, labels = batch
    found = float(losses.answer_nll(logits, labels))
    assert found == pytest.approx(naive_nll(logits, labels), rel=1e-8, abs=1e-8)


@given(
    st.lists(st.tuples(*[st.floats(-300, 0)] * 2), min_size=1, max_size=6),
    st.floats(0.01, 5),
)
@quickly
def test_npo_is_the_loop(pairs: list[tuple[float, float]], beta: float) -> None:
    theta, theta_0 = [a for a, _ in pairs], [b for _, b in pairs]
    found = losses.npo(
        torch.tensor(theta, dtype=torch.float64), torch.tensor(theta_0, dtype=torch.float64), beta
    )
    assert float(found) == pytest.approx(naive_npo(theta, theta_0, beta), rel=1e-8, abs=1e-8)


@given(batches)
@quickly
def test_kl_is_the_loop(batch: Batch) -> None:
    logits, reference, labels = batch
    found = float(losses.kl_to_reference(logits, reference, labels))
    assert found == pytest.approx(naive_kl(logits, reference, labels), rel=1e-8, abs=1e-8)


@given(batches)
@quickly
def test_kl_from_selected_positions(batch: Batch) -> None:
    logits, reference, labels = batch
    selected = losses.answer_token_distributions(logits, labels)
    assert selected.shape == (int(losses.answer_token_count(labels)), logits.shape[2])
    found = losses.answer_token_kl(selected, losses.answer_token_distributions(reference, labels))
    expected = losses.kl_to_reference(logits, reference, labels)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_gradcheck() -> None:
    logits, reference, labels = make(3, 5, 6, 1.0, 7)
    logits.requires_grad_()
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: losses.answer_logprobs(x, labels),
        lambda x: losses.answer_nll(x, labels),
        lambda x: losses.kl_to_reference(x, reference, labels),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, (logits,))
    logprobs = torch.tensor([-3.0, -40.0, -0.1], dtype=torch.float64, requires_grad=True)
    theta_0 = torch.tensor([-5.0, -4.0, -0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: losses.npo(x, theta_0, 0.3), (logprobs,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_reduced_in_float32(dtype: torch.dtype) -> None:
    logits, reference, labels = make(3, 6, 50, 3.0, 8)
    low, low_reference = logits.to(dtype), reference.to(dtype)
    high, high_reference = low.float(), low_reference.float()
    for found, expected in [
        (losses.answer_logprobs(low, labels), losses.answer_logprobs(high, labels)),
        (losses.answer_nll(low, labels), losses.answer_nll(high, labels)),
        (
            losses.kl_to_reference(low, low_reference, labels),
            losses.kl_to_reference(high, high_reference, labels),
        ),
        (
            losses.npo(low[0, 0], low_reference[0, 0], 0.1),
            losses.npo(high[0, 0], high_reference[0, 0], 0.1),
        ),
    ]:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_float64_stays() -> None:
    logits, reference, labels = make(2, 4, 5, 1.0, 9)
    assert losses.answer_logprobs(logits, labels).dtype == torch.float64
    assert losses.kl_to_reference(logits, reference, labels).dtype == torch.float64
    assert losses.npo(logits[0, 0], reference[0, 0], 0.1).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize(("theta", "theta_0"), [(-1e4, 0.0), (0.0, -1e4), (-1e4, -1e4)])
def test_npo_at_1e4(dtype: torch.dtype, beta: float, theta: float, theta_0: float) -> None:
    logprobs = torch.tensor([theta], dtype=dtype, requires_grad=True)
    loss = losses.npo(logprobs, torch.tensor([theta_0], dtype=dtype), beta)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    x = beta * (theta - theta_0)
    expected = 2 / beta * max(x, 0.0) + 2 / beta * math.log1p(math.exp(-abs(x)))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    slope = 2.0 if x > 0 else 1.0 if x == 0 else 0.0
    assert gradient.tolist() == [pytest.approx(slope)]


@pytest.mark.parametrize(
    ("theta", "slope"), [(-5.0, 2.0), (-math.inf, 0.0)], ids=["p0 = 0", "p = p0 = 0"]
)
def test_npo_where_the_reference_is_impossible(theta: float, slope: float) -> None:
    logprobs = torch.tensor([theta], requires_grad=True)
    loss = losses.npo(logprobs, torch.tensor([-math.inf]), 0.1)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert math.isfinite(float(loss.detach()))
    assert gradient.tolist() == [pytest.approx(slope)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_1e4(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]], dtype=dtype, requires_grad=True)
    reference = torch.tensor([[[0.0, -1e4, -1e4], [0.0, 0.0, 0.0]]], dtype=dtype)
    labels = torch.tensor([[-100, 2]])
    assert losses.answer_logprobs(logits, labels).tolist() == [-2e4]
    assert losses.kl_to_reference(logits, reference, labels).item() == 0.0
    other = torch.tensor([[[-1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]], dtype=dtype)
    assert losses.kl_to_reference(logits, other, labels).item() == pytest.approx(1e4)
    (gradient,) = torch.autograd.grad(losses.kl_to_reference(logits, other, labels), logits)
    assert gradient[0, 0].tolist() == [1.0, -1.0, 0.0]


def test_kl_where_tokens_are_impossible() -> None:
    """p_ref = 0 adds nothing, also where p is 0 too; gradient p - p_ref without NaN."""
    logits = torch.tensor([[[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]]], requires_grad=True)
    reference = torch.tensor([[[0.0, -math.inf, -math.inf], [0.0, 0.0, 0.0]]])
    loss = losses.kl_to_reference(logits, reference, torch.tensor([[-100, 0]]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert gradient[0, 0].tolist() == pytest.approx([-0.5, 0.5, 0.0])


def test_no_answer_token_gives_0_with_a_graph() -> None:
    logits, reference, labels = make(2, 4, 5, 1.0, 10)
    logits.requires_grad_()
    labels[:, 1:] = -100  # The first label counts for nothing.
    assert losses.answer_logprobs(logits, labels).tolist() == [0.0, 0.0]
    found = [
        losses.answer_logprobs(logits, labels).sum(),
        losses.answer_nll(logits, labels),
        losses.kl_to_reference(logits, reference, labels),
    ]
    for loss in found:
        (gradient,) = torch.autograd.grad(loss, logits)
        assert float(loss.detach()) == 0.0
        assert torch.equal(gradient, torch.zeros_like(logits))


@given(batches, st.lists(st.integers(0, 2), min_size=4, max_size=4), st.sampled_from(["nll", "kl"]))
@quickly
def test_shards_weighted_by_their_tokens_give_the_whole(
    batch: Batch, shard_of: list[int], kind: str
) -> None:
    logits, reference, labels = batch
    logits.requires_grad_()

    def loss(rows: Tensor) -> Tensor:
        if kind == "nll":
            return losses.answer_nll(logits[rows], labels[rows])
        return losses.kl_to_reference(logits[rows], reference[rows], labels[rows])

    owner = torch.tensor(shard_of[: len(labels)])
    whole = loss(torch.arange(len(labels)))
    parts = torch.zeros((), dtype=torch.float64)
    for shard in range(3):
        rows = (owner == shard).nonzero().squeeze(-1)
        parts = parts + losses.answer_token_count(labels[rows]) * loss(rows)
    parts = parts / losses.answer_token_count(labels).clamp(min=1)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    (expected,) = torch.autograd.grad(whole, logits)
    (found,) = torch.autograd.grad(parts, logits)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_prompt_logits_do_not_matter() -> None:
    logits, reference, labels = make(2, 6, 5, 1.0, 11)
    spoilt = logits.clone()
    spoilt[:, :-1][labels[:, 1:] == -100] = math.nan
    spoilt[:, -1] = math.nan
    assert torch.equal(losses.answer_nll(spoilt, labels), losses.answer_nll(logits, labels))
    assert torch.equal(
        losses.kl_to_reference(spoilt, reference, labels),
        losses.kl_to_reference(logits, reference, labels),
    )


def test_no_gradient_reaches_the_reference() -> None:
    logits, reference, labels = make(2, 4, 5, 1.0, 12)
    reference.requires_grad_()
    assert not losses.kl_to_reference(logits, reference, labels).requires_grad
    assert not losses.npo(logits[0, 0], reference[0, 0], 0.1).requires_grad


def test_errors_name_the_shapes() -> None:
    logits, reference, labels = make(2, 4, 5, 1.0, 13)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        losses.answer_nll(logits, labels[:, :3])
    with pytest.raises(ValueError, match=r"\(2, 4, 4\)"):
        losses.kl_to_reference(logits, reference[..., :4], labels)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        losses.npo(torch.zeros(2), torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match="beta"):
        losses.npo(torch.zeros(2), torch.zeros(2), 0.0)


def test_import_leaves_torch_out() -> None:
    code = "import sys, distforget.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
