"""Two quick tests of an auditor who holds a sample: is it part of the weights' solution?

Both read weights, not reconstructions. They say whether the sample itself is in the solution; what
similar samples left behind they see only in part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distforget.study import UsageError
from distforget.tracks.image import kkt
from distforget.tracks.image.fitting import Labelled
from distforget.tracks.image.models import MLP

Floats = NDArray[np.float64]


def kkt_membership(
    model: MLP,
    known: Labelled,
    queries: Labelled,
    weight_decay: float,
    num_train: int,
    itself: Sequence[int | None] | None = None,
) -> Tensor:
    """Multiplier of each query in the weights, over what a member's would be: (Q,), float64.

    Solves theta = sum_i mu_i grad m_i + mu_q grad m_q, mu >= 0, by least squares, over the known
    samples and one query at a time; a member's mu_q is (1 - p_q) / (wd N) at a stationary point,
    and the result is mu_q over that: about 1 for members, 0 for others.

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
    exact = MLP(model.config).double().to(kkt.linear_layers(model)[0].weight.device)
    exact.load_state_dict(model.state_dict())
    ours, asked = _factors(exact, known), _factors(exact, queries)
    gram_NN, cross_NQ = (_numbers(kkt.gram(exact, ours, those)) for those in (ours, asked))
    target_N, along_Q = (_numbers(kkt.projections(exact, those)) for those in (ours, asked))
    self_Q = _own(exact, asked)
    start_N = np.linalg.norm(gram_NN, axis=0) > 0
    _, base_N = nonnegative_least_squares(gram_NN, target_N, start_N)
    found = np.zeros(len(rows))
    for q, row in enumerate(rows):
        kept = np.arange(count) != (-1 if row is None else row)
        gram = np.block(
            [[gram_NN[np.ix_(kept, kept)], cross_NQ[kept, q : q + 1]],
             [cross_NQ[kept, q : q + 1].T, self_Q[q : q + 1, None]]]
        )  # fmt: skip
        solution, _ = nonnegative_least_squares(
            gram, np.append(target_N[kept], along_Q[q]), np.append(base_N[kept], True)
        )
        found[q] = solution[-1]
    with torch.no_grad():
        chance_Q = exact(queries.images_NCHW.double()).softmax(1)
    own_Q = _numbers(chance_Q.gather(1, queries.labels_N[:, None])[:, 0])
    return torch.from_numpy(found * weight_decay * num_train / np.maximum(1 - own_Q, 1e-12))


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


def _factors(model: MLP, samples: Labelled) -> list[kkt.Factor]:
    images_ND = samples.images_NCHW.double().flatten(1)
    with torch.no_grad():
        return kkt.margin_factors(
            model, images_ND, samples.labels_N, torch.ones_like(images_ND[:, 0])
        )


def _own(model: MLP, factors: Sequence[kkt.Factor]) -> Floats:
    """Squared norms of N gradients: (N,)."""
    found = torch.zeros(())
    for layer, factor in zip(kkt.linear_layers(model), factors, strict=True):
        inputs_N = factor.input_NI.square().sum(1) + (layer.bias is not None)
        found = found + factor.signal_NO.square().sum(1) * inputs_N
    return _numbers(found)


def _numbers(tensor: Tensor) -> Floats:
    return tensor.detach().cpu().numpy().astype(np.float64)
