"""Losses over answer tokens as pure tensor functions.

Axes: B batch, T tokens, V vocabulary, N answer tokens of the whole batch. All values are in nats.
Labels may lie on the CPU while logits are on a device: then nothing here waits for the device.
bf16 and fp16 are reduced in float32, float64 stays float64. torch is used through Tensor methods
alone, so that importing this module (`distforget plan` does) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distforget.draws import rng

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Weigh = Callable[[Tensor], Tensor]

IGNORED = -100
"""Label of a token that is not part of an answer: prompt or padding."""

TOKENS_AT_ONCE = 256
"""Tokens whose probabilities over the vocabulary are in memory at once."""

LOWEST_LOGPROB = -1e30
"""Stands for log 0 where -inf would make a loss or its gradient NaN; finite in float32."""


def answer_token_count(labels_BT: Tensor) -> Tensor:
    """Integer scalar N: the answer tokens that the losses below average over.

    The first label of a row does not count: no logits predict it. A mean over shards is
    sum(N_shard * loss_shard) / sum(N_shard).
    """
    return (labels_BT[:, 1:] != IGNORED).sum()


def answer_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(a|q) of each sample: the sum of log p(label) over its answer tokens.

    Args:
        logits: (B, T, V); those at t predict the labels at t+1.
        labels: (B, T) token ids, -100 where the token is not part of the answer.

    Returns:
        (B,) in nats; 0 for a sample without answer tokens.

    Raises:
        ValueError: labels are not (B, T).
    """
    rows_N, times_N = _answer_positions(logits, labels)
    logprobs_N = _label_logprobs(logits, labels, rows_N, times_N)
    sums_B = logprobs_N.new_zeros(logits.shape[0])
    return sums_B.index_add(0, rows_N.to(logits.device, non_blocking=True), logprobs_N)


def token_logprobs(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """log p(label) at each answer token of each sample; as :func:`answer_logprobs` before the sum.

    Returns:
        (T,) of each sample in nats, T being its answer tokens.

    Raises:
        ValueError: labels are not (B, T).
    """
    rows_N, times_N = _answer_positions(logits, labels)
    logprobs_N = _label_logprobs(logits, labels, rows_N, times_N)
    sizes_B = rows_N.bincount(minlength=logits.shape[0])
    return list(logprobs_N.split_with_sizes(sizes_B.tolist()))


def token_statistics(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """What the model says of each answer token of each sample.

    Returns:
        (T, 4) of each sample, T being its answer tokens: log p(label) in nats; that less
        log p of the most likely token; mean and standard deviation of log p over the vocabulary,
        weighted by p.

    Raises:
        ValueError: labels are not (B, T).
    """
    rows_N, times_N = _answer_positions(logits, labels)
    labels_N1 = _expected(logits, labels, rows_N, times_N)
    found_N4 = _at_least_float32(logits.new_empty(len(rows_N), 4))
    for low in range(0, len(rows_N), TOKENS_AT_ONCE):
        part = slice(low, low + TOKENS_AT_ONCE)
        logits_NV = _at_least_float32(_select(logits, rows_N[part], times_N[part]))
        logprobs_NV = logits_NV.log_softmax(-1)
        own_N1 = logprobs_NV.gather(-1, labels_N1[part])
        found_N4[part, 1] = own_N1[:, 0] - logprobs_NV.amax(-1)
        probs_NV = logprobs_NV.exp()
        logprobs_NV = logprobs_NV.masked_fill(probs_NV == 0, 0.0)
        mean_N = (probs_NV * logprobs_NV).sum(-1)
        variance_N = (probs_NV * (logprobs_NV - mean_N[:, None]).square()).sum(-1)
        found_N4[part, 0] = own_N1[:, 0]
        found_N4[part, 2] = mean_N
        found_N4[part, 3] = variance_N.sqrt()
    sizes_B = rows_N.bincount(minlength=logits.shape[0])
    return list(found_N4.split_with_sizes(sizes_B.tolist()))


def answer_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all answer tokens of the batch of -log p(label): NLL of the paper, section 4.2.

    Args:
        logits: (B, T, V); those at t predict the labels at t+1.
        labels: (B, T) token ids, -100 where the token is not part of the answer.

    Returns:
        Scalar in nats; 0 (with a graph) when the batch has no answer token.

    Raises:
        ValueError: labels are not (B, T).
    """
    rows_N, times_N = _answer_positions(logits, labels)
    return -_mean(_label_logprobs(logits, labels, rows_N, times_N).sum(), len(rows_N))


def npo(logprobs: Tensor, reference_logprobs: Tensor, beta: float) -> Tensor:
    """Mean over the batch of (2/beta) * log(1 + (p_theta(a|q) / p_theta0(a|q))^beta).

    A reference probability of 0 counts as exp(-1e30): the loss is huge but finite, its gradient
    is the limit, 2 per nat; 0/0 counts as already forgotten, loss 0.

    Args:
        logprobs: (B,) log p_theta(a|q) in nats, summed over the answer's tokens.
        reference_logprobs: (B,) the same under theta_0; a constant, no gradient reaches it.
        beta: inverse temperature, above 0; the smaller, the closer to gradient ascent.

    Returns:
        Scalar; 0 (with a graph) for an empty batch.

    Raises:
        ValueError: beta is not above 0, or the shapes differ.

    Source: paper section 4.2; Zhang et al. 2024, Negative Preference Optimization, Eq. 3.
    """
    if not beta > 0:
        raise ValueError(f"npo: beta is {beta}, it must be above 0")
    if logprobs.shape != reference_logprobs.shape:
        raise ValueError(
            f"npo: logprobs are {tuple(logprobs.shape)}, reference_logprobs are "
            f"{tuple(reference_logprobs.shape)}; both must be (B,)"
        )
    reference_B = _at_least_float32(reference_logprobs.detach()).clamp(min=LOWEST_LOGPROB)
    log_ratio_B = _at_least_float32(logprobs) - reference_B
    softplus_B = log_ratio_B.new_zeros(()).logaddexp(beta * log_ratio_B)
    return _mean((2 / beta) * softplus_B.sum(), logprobs.numel())


def kl_to_reference(logits: Tensor, reference_logprobs_BTV: Tensor, labels: Tensor) -> Tensor:
    """Mean over answer tokens of KL(p_theta0(.|x_<t) || p_theta(.|x_<t)): KL of Eq. 6.

    Args:
        logits: (B, T, V) of theta; those at t predict the labels at t+1.
        reference_logprobs_BTV: log-probabilities of theta_0, aligned with the logits; -inf is
            allowed; a constant, no gradient reaches it.
        labels: (B, T) token ids, -100 where the token is not part of the answer.

    Returns:
        Scalar in nats; 0 (with a graph) when the batch has no answer token.

    Raises:
        ValueError: labels are not (B, T), or the reference is not (B, T, V).
    """
    if reference_logprobs_BTV.shape != logits.shape:
        raise ValueError(
            f"kl_to_reference: reference_logprobs_BTV is {tuple(reference_logprobs_BTV.shape)}, "
            f"it must have the logits' shape {tuple(logits.shape)}"
        )
    rows_N, times_N = _answer_positions(logits, labels)
    return answer_token_kl(
        _at_least_float32(_select(logits, rows_N, times_N)).log_softmax(-1),
        _select(reference_logprobs_BTV.detach(), rows_N, times_N),
    )


def answer_token_distributions(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, V) log-probabilities at the answer positions, for :func:`answer_token_kl`.

    Args:
        logits: (B, T, V); those at t predict the labels at t+1.
        labels: (B, T) token ids, -100 where the token is not part of the answer.

    Raises:
        ValueError: labels are not (B, T).
    """
    rows_N, times_N = _answer_positions(logits, labels)
    return _at_least_float32(_select(logits, rows_N, times_N)).log_softmax(-1)


def at_answers(states_BTH: Tensor, labels_BT: Tensor) -> Tensor:
    """(N, H) of the positions that predict answer tokens, row by row."""
    return _select(states_BTH, *_answer_positions(states_BTH, labels_BT))


def steered(hidden_NH: Tensor, coefficient: float, seed: int) -> Tensor:
    """Mean squared distance from a fixed random direction of the length `coefficient`.

    Args:
        seed: of the direction, whose units are drawn evenly from 0 to 1 as in RMU's code.
    """
    direction_H = rng(seed, "direction").random(hidden_NH.shape[-1])
    states_NH = _at_least_float32(hidden_NH)
    goal_H = states_NH.new_tensor(coefficient * direction_H / (direction_H**2).sum() ** 0.5)
    return (states_NH - goal_H).square().mean()


def mean_squared(values_NH: Tensor, others_NH: Tensor) -> Tensor:
    """Mean over all values of the squared difference; no gradient reaches the others."""
    other = _at_least_float32(others_NH.detach())
    return (_at_least_float32(values_NH) - other).square().mean()


def answer_tokens(labels_BT: Tensor) -> Tensor:
    """(N,) the answer tokens, row by row, as :func:`answer_token_distributions` has them."""
    return labels_BT[:, 1:][labels_BT[:, 1:] != IGNORED]


def dpo(preferred_B: Tensor, other_B: Tensor, beta: float) -> Tensor:
    """Mean over the batch of (2/beta) * log(1 + exp(-beta * (preferred - other))).

    Args:
        preferred_B: log p_theta - log p_theta0 of the preferred answer, in nats.
        other_B: the same of the other answer.

    Source: Rafailov et al. 2023, Eq. 7, times 2/beta as NPO has it.
    """
    margin_B = _at_least_float32(preferred_B) - _at_least_float32(other_B)
    softplus_B = margin_B.new_zeros(()).logaddexp(-beta * margin_B)
    return _mean((2 / beta) * softplus_B.sum(), margin_B.numel())


def simnpo(token_logprobs: Sequence[Tensor], beta: float, gamma: float) -> Tensor:
    """Mean over samples of (2/beta) * log(1 + exp(beta * mean log p + gamma)).

    Args:
        token_logprobs: (T,) of each sample: log p_theta of its answer tokens, in nats.
        beta: inverse temperature, above 0.
        gamma: margin in nats; the larger, the longer the loss pushes.

    Source: Fan et al. 2024, Simplicity Prevails: NPO without reference model, the
    log-probability divided by the answer's length.
    """
    totals = [
        sample_T.new_zeros(()).logaddexp(beta * _mean(sample_T.sum(), len(sample_T)) + gamma)
        for sample_T in token_logprobs
    ]
    return _mean((2 / beta) * sum(totals[1:], totals[0]), len(totals))


def weighted_ascent(token_logprobs: Sequence[Tensor], weigh: Weigh) -> Tensor:
    """Mean over all answer tokens of w(p) * log p, the weights being constants.

    Args:
        token_logprobs: (T,) of each sample: log p_theta of its answer tokens, in nats.
        weigh: from p (T,) the weights w (T,).
    """
    sums = [(weigh(own_T.detach().exp()) * own_T).sum() for own_T in token_logprobs]
    return _mean(sum(sums[1:], sums[0]), sum(map(len, token_logprobs)))


def cross_entropy(target_logprobs_NV: Tensor, logprobs_NV: Tensor) -> Tensor:
    """Mean over N of -sum over V of q(v) * log p(v); no gradient reaches q."""
    probs_NV = _at_least_float32(target_logprobs_NV.detach()).exp()
    found_NV = probs_NV * _at_least_float32(logprobs_NV)
    return -_mean(found_NV.masked_fill(probs_NV == 0, 0.0).sum(), len(logprobs_NV))


def lowered(logprobs_NV: Tensor, labels_N: Tensor, by: float) -> Tensor:
    """(N, V) log-probabilities after the logit of each label is lowered by so many nats."""
    logits_NV = _at_least_float32(logprobs_NV).clone()
    amounts_N1 = logits_NV.new_full((len(labels_N), 1), -by)
    labels_N1 = labels_N[:, None].to(logits_NV.device, non_blocking=True)
    return logits_NV.scatter_add_(1, labels_N1, amounts_N1).log_softmax(-1)


def answer_token_kl(logprobs_NV: Tensor, reference_logprobs_NV: Tensor) -> Tensor:
    """Mean over N of KL(p_ref || p), for answer tokens that were already selected.

    Args:
        logprobs_NV: log-probabilities, as from log_softmax.
        reference_logprobs_NV: those of the reference; -inf is allowed; no gradient reaches it.

    Returns:
        Scalar in nats; 0 (with a graph) when N is 0.

    Raises:
        ValueError: the shapes differ.
    """
    if logprobs_NV.shape != reference_logprobs_NV.shape:
        raise ValueError(
            f"answer_token_kl: logprobs_NV is {tuple(logprobs_NV.shape)}, "
            f"reference_logprobs_NV is {tuple(reference_logprobs_NV.shape)}; they must agree"
        )
    reference_NV = _at_least_float32(reference_logprobs_NV.detach())
    probs_NV = reference_NV.exp()
    # A token of reference probability 0 adds nothing, although its factor below may be infinite.
    # In place: these tensors are the step's largest after the logits, and none is needed again.
    kl_NV = reference_NV - _at_least_float32(logprobs_NV)
    kl_NV = kl_NV.masked_fill_(probs_NV == 0, 0.0).mul_(probs_NV)
    return _mean(kl_NV.sum(), len(logprobs_NV))


def _answer_positions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) rows and (N,) times of the logits that predict an answer token, row by row."""
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"labels are {tuple(labels.shape)} and logits {tuple(logits.shape)}; "
            "they must be (B, T) and (B, T, V)"
        )
    positions_N2 = (labels[:, 1:] != IGNORED).nonzero()
    return positions_N2[:, 0], positions_N2[:, 1]


def _select(x_BTV: Tensor, rows_N: Tensor, times_N: Tensor) -> Tensor:
    """(N, V) of the positions given. index_select: 2.5 times as fast backward as x[rows, times]."""
    places_N = (rows_N * x_BTV.shape[1] + times_N).to(x_BTV.device, non_blocking=True)
    return x_BTV.flatten(0, 1).index_select(0, places_N)


def _expected(logits: Tensor, labels: Tensor, rows_N: Tensor, times_N: Tensor) -> Tensor:
    """(N, 1) labels at t+1, on the device of the logits."""
    labels_N1 = labels[rows_N, times_N + 1].long().unsqueeze(-1)
    return labels_N1.to(logits.device, non_blocking=True)


def _label_logprobs(logits: Tensor, labels: Tensor, rows_N: Tensor, times_N: Tensor) -> Tensor:
    """(N,) log p(label at t+1); prompt positions never enter the softmax."""
    labels_N1 = _expected(logits, labels, rows_N, times_N)
    logprobs_NV = _at_least_float32(_select(logits, rows_N, times_N)).log_softmax(-1)
    return logprobs_NV.gather(-1, labels_N1).squeeze(-1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.itemsize < 4 else x


def _mean(total: Tensor, count: int) -> Tensor:
    """The mean of `count` summed values; 0 and still differentiable when there were none."""
    return total / max(count, 1)
