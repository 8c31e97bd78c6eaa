"""Two fast membership tests for an auditor who holds a sample.

Both read weights, not reconstructions. They say whether the sample itself is in the solution; what
similar samples left behind they see only in part.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distforget.errors import UsageError
from distforget.imaging import kkt
from distforget.imaging.fitting import Labelled
from distforget.imaging.models import MLP, Classifier
from distforget.imaging.slopes import Weighed, free_slopes

Floats = NDArray[np.float64]

ROUNDS = 4
"""Of solving for multipliers and for slopes in turn."""


def kkt_membership(
    model: Classifier,
    known: Labelled,
    queries: Labelled,
    weight_decay: float,
    num_train: int,
    itself: Sequence[int | None] | None = None,
) -> Tensor:
    """Multiplier of each query in the weights, over what a member's would be: (Q,), float64.

    Solves theta = sum_i mu_i grad m_i + mu_q grad m_q, mu >= 0, by least squares, over the known
    samples and one query at a time; a member's mu_q is (1 - p_q) / (wd N) at a stationary point,
    and the result is mu_q over that: about 1 for members, 0 for others. Slopes at kinks are free in
    an MLP (see `slopes`), of a CNN they are those of ReLU.

    Args:
        known: samples that the model is known or thought to be trained on, the mean subtracted;
            reconstructions will do.
        queries: the samples asked for, without the known ones or with them: see `itself`.
        weight_decay: wd of the training.
        num_train: N, how many samples the model was trained on.
        itself: for each query its own row in `known`, which is left out then; None: it has none.

    Raises:
        UsageError: `itself` does not fit the queries or the known samples.
    """
    count, wanted = len(known.labels_N), len(queries.labels_N)
    rows = [None] * wanted if itself is None else list(itself)
    if len(rows) != wanted or any(r is not None and not 0 <= r < count for r in rows):
        raise UsageError(
            f"itself must name for each of the {wanted} queries None or a row of the {count} "
            "known samples"
        )
    exact = copy.deepcopy(model).double()
    member_Q = kkt.member_multipliers(exact, queries, weight_decay, num_train)
    if isinstance(exact, MLP):
        products = _products(exact, known, queries, member_Q, rows)
    else:
        products = _products_by_autograd(exact, known, queries)
    gram_NN, cross_NQ, own_Q, target_N, along_Q = map(_numbers, products)
    _, base_N = nonnegative_least_squares(gram_NN, target_N, np.diag(gram_NN) > 0)
    found = np.zeros(len(rows))
    for q, row in enumerate(rows):
        kept = np.arange(count) != (-1 if row is None else row)
        gram = np.block(
            [[gram_NN[np.ix_(kept, kept)], cross_NQ[kept, q : q + 1]],
             [cross_NQ[kept, q : q + 1].T, own_Q[q : q + 1, None]]]
        )  # fmt: skip
        solution, _ = nonnegative_least_squares(
            gram, np.append(target_N[kept], along_Q[q]), np.append(base_N[kept], True)
        )
        found[q] = solution[-1]
    return torch.from_numpy(found / np.maximum(_numbers(member_Q), 1e-300))


def span_scores(model: MLP, images_NCHW: Tensor, rank: int) -> Tensor:
    """Share of [x, 1] that lies in the top right singular vectors of [W1 | b1]: (N,), 0 to 1.

    A stationary first layer is a combination of the training samples' [x, 1], so those lie in the
    span as far as there are no more of them than `rank`. x without its 1 where W1 has no bias.

    Args:
        images_NCHW: the mean image subtracted.
        rank: number of training samples, or a little more.
    """
    layer = kkt.linear_layers(model)[0]
    basis_KD = kkt.right_singular_vectors(layer, rank).double()
    x_ND = images_NCHW.flatten(1).double()
    if layer.bias is not None:
        x_ND = torch.cat([x_ND, torch.ones_like(x_ND[:, :1])], 1)
    inside_N = (x_ND @ basis_KD.T).square().sum(1)
    return inside_N / x_ND.square().sum(1)


def nonnegative_least_squares(
    gram: Floats, target: Floats, start: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """The x >= 0 of least x'Gx/2 - t'x, and where it is not 0; G positive semidefinite (n, n).

    Quick from a good guess `start` of where x is not 0.

    Source: Kim and Park 2011, "Fast Nonnegative Matrix Factorization", block principal pivoting.
    """
    size = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    gram = gram / size / size[:, None] + 1e-12 * np.eye(len(gram))
    target = target / size
    tolerance = 1e-10 * np.abs(target).max(initial=0.0)
    free, least, patience = start.copy(), len(target) + 1, 3
    while True:
        solution = np.zeros(len(target))
        if free.any():
            solution[free] = np.linalg.solve(gram[np.ix_(free, free)], target[free])
        slope = gram @ solution - target
        wrong = np.where(free, solution < 0, slope < -tolerance)
        count = int(wrong.sum())
        if not count:
            return solution / size, free
        if count < least:
            least, patience = count, 3
        else:
            patience -= 1
        if patience < 0:  # exchanging one at a time cannot cycle
            wrong[: int(np.flatnonzero(wrong)[-1])] = False
        free = free ^ wrong


class _Products(NamedTuple):
    """Inner products of the gradients of margins."""

    gram_NN: Tensor
    cross_NQ: Tensor
    own_Q: Tensor
    """Each query's with itself."""
    target_N: Tensor
    """With the weights."""
    along_Q: Tensor
    """With the weights."""


@torch.no_grad()
def _products(
    model: MLP,
    known: Labelled,
    queries: Labelled,
    member_Q: Tensor,
    itself: Sequence[int | None],
) -> _Products:
    of_known = _factors(model, known, kkt.step)
    for _ in range(ROUNDS):
        multipliers_N, _ = nonnegative_least_squares(
            gram := _numbers(kkt.gram(model, of_known, of_known)),
            _numbers(kkt.projections(model, of_known)),
            np.diag(gram) > 0,
        )
        slopes, theirs = free_slopes(
            model,
            Weighed(known, torch.from_numpy(multipliers_N).to(member_Q)),
            Weighed(queries, member_Q),
        )
        of_known = _factors(model, known, slopes)
    listed = [query for query, row in enumerate(itself) if row is not None]
    for slopes_QH, slopes_NH in zip(theirs, slopes, strict=True):
        slopes_QH[listed] = slopes_NH[[row for row in itself if row is not None]]
    asked = _factors(model, queries, theirs)
    return _Products(
        kkt.gram(model, of_known, of_known),
        kkt.gram(model, of_known, asked),
        kkt.own(model, asked),
        kkt.projections(model, of_known),
        kkt.projections(model, asked),
    )


def _factors(
    model: MLP, samples: Labelled, slope: kkt.Slope | Sequence[Tensor]
) -> list[kkt.Factor]:
    images_ND = samples.images_NCHW.double().flatten(1)
    return kkt.margin_factors(
        model, images_ND, samples.labels_N, torch.ones_like(images_ND[:, 0]), slope
    )


def _products_by_autograd(model: Classifier, known: Labelled, queries: Labelled) -> _Products:
    gradients_NP, asked_QP = (margin_gradients(model, part) for part in (known, queries))
    theta_P = torch.cat([p.detach().flatten() for p in model.parameters()])
    return _Products(
        gradients_NP @ gradients_NP.T,
        gradients_NP @ asked_QP.T,
        asked_QP.square().sum(1),
        gradients_NP @ theta_P,
        asked_QP @ theta_P,
    )


def margin_gradients(model: Classifier, samples: Labelled) -> Tensor:
    """The gradient of each sample's margin by all parameters, one after the other: (N, P)."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    images_NCHW = samples.images_NCHW.to(next(iter(parameters.values())))

    def margin(weights: dict[str, Tensor], image_CHW: Tensor, signal_K: Tensor) -> Tensor:
        logits_1K: Tensor = torch.func.functional_call(model, weights, (image_CHW[None],))
        return (logits_1K[0] * signal_K).sum()

    with torch.no_grad():
        signal_NK = kkt.output_signal(model(images_NCHW), samples.labels_N)
    each = torch.func.vmap(torch.func.grad(margin), (None, 0, 0), chunk_size=64)
    found = each(parameters, images_NCHW, signal_NK)
    return torch.cat([gradient.flatten(1) for gradient in found.values()], 1)


def _numbers(tensor: Tensor) -> Floats:
    return tensor.detach().cpu().numpy().astype(np.float64)
