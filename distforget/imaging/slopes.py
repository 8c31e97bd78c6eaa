"""Slopes of ReLU at kinks: if a sample lies on a unit's edge, any slope from 0 to 1 is possible.

At a kink the loss has no gradient but a set of them, and training that comes to rest there balances
the weights with some member of the set. So the equations of `kkt` hold with slopes that are unknown
at kinks and 0 or 1 elsewhere; with a fixed slope at kinks the training samples do not solve them.

Source: Clarke's generalised gradient, as Lyu and Li 2020, "Gradient Descent Maximizes the Margin of
Homogeneous Neural Networks", and Haim et al. 2022 state the equations.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from distforget.imaging import kkt
from distforget.imaging.fitting import Labelled
from distforget.imaging.kinks import ON_THE_EDGE, angles
from distforget.imaging.models import MLP

SWEEPS = 30
"""Over all samples; the distance falls with each and hardly after the twentieth."""


@dataclass(frozen=True)
class Weighed:
    """Samples as the model takes them, and the multipliers that they have in the weights."""

    samples: Labelled
    multipliers_N: Tensor


@torch.no_grad()
def free_slopes(
    model: MLP, known: Weighed, asked: Weighed | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """The slopes of each hidden layer, (N, H) of the known samples and (Q, H) of those asked for.

    Those at kinks are such that the known samples' gradients come closest to the weights, layer by
    layer from the last; of each sample asked for, such that it comes closest with the known ones,
    were it a member with its multiplier. A model in float64 is what this needs.
    """
    layers = kkt.linear_layers(model)
    parts = [_Part(model, of_one) for of_one in (known, asked) if of_one is not None]
    for number in reversed(range(len(layers) - 1)):
        layer, after = layers[number], layers[number + 1]
        ours, inputs_NI = parts[0], parts[0].inputs[number]
        extra = float(layer.bias is not None)
        for part in parts:
            back_NH = part.signal_NO @ after.weight
            left_NH = layer(part.inputs[number])
            part.slopes[number] = kkt.step(left_NH)
            if part is ours:
                gram_NN = inputs_NI @ inputs_NI.T + extra
                left_NH -= gram_NN @ (back_NH * part.slopes[number])
                _descend(part, number, back_NH, left_NH, gram_NN)
            else:
                left_NH -= (part.inputs[number] @ inputs_NI.T + extra) @ ours.signal_NO
                own_N = part.inputs[number].square().sum(1) + extra
                best_NH = left_NH / (back_NH * own_N[:, None])
                part.slopes[number] = torch.where(
                    part.edges[number] & best_NH.isfinite(),
                    best_NH.clamp(0, 1),
                    part.slopes[number],
                )
            part.signal_NO = back_NH * part.slopes[number]
    return parts[0].slopes, parts[-1].slopes


class _Part:
    """What goes forward, and the signal that comes back as far as it has come."""

    def __init__(self, model: MLP, weighed: Weighed) -> None:
        samples = weighed.samples
        images_ND = samples.images_NCHW.double().flatten(1)
        factors = kkt.margin_factors(model, images_ND, samples.labels_N, weighed.multipliers_N)
        self.inputs = [factor.input_NI for factor in factors]
        self.signal_NO = factors[-1].signal_NO
        widths = [layer.out_features for layer in kkt.linear_layers(model)[:-1]]
        self.edges = torch.split(angles(model, samples.images_NCHW) < ON_THE_EDGE, widths, 1)
        self.slopes = [self.signal_NO] * len(widths)


def _descend(part: _Part, number: int, back_NH: Tensor, left_NH: Tensor, gram_NN: Tensor) -> None:
    """Coordinate descent on a layer's free slopes, all units at once, one sample after the other.

    Args:
        left_NH: inner products of the inputs with what of the weights is not explained yet.
        gram_NN: inner products of the inputs.
    """
    slopes_NH, edges_NH = part.slopes[number], part.edges[number]
    rows = edges_NH.any(1).nonzero()[:, 0].tolist()
    for _ in range(SWEEPS):
        for row in rows:
            back_H = back_NH[row]
            better_H = slopes_NH[row] + left_NH[row] / (back_H * gram_NN[row, row])
            moved_H = better_H.clamp(0, 1) - slopes_NH[row]
            moved_H = torch.where(edges_NH[row] & moved_H.isfinite(), moved_H, 0.0)
            slopes_NH[row] += moved_H
            left_NH -= torch.outer(gram_NN[row], back_H * moved_H)


def residual(model: MLP, samples: Labelled, multipliers_N: Tensor, free: bool = False) -> float:
    """|theta - sum of the samples' gradients| / |theta|; with slopes at kinks free, if wished."""
    exact = copy.deepcopy(model).double()
    images_ND = samples.images_NCHW.double().flatten(1)
    weighed = Weighed(samples, multipliers_N.double())
    slope = free_slopes(exact, weighed)[0] if free else kkt.step
    with torch.no_grad():
        factors = kkt.margin_factors(
            exact, images_ND, samples.labels_N, weighed.multipliers_N, slope
        )
        sizes = torch.stack([kkt.squared_norm(layer) for layer in kkt.linear_layers(exact)])
        apart = torch.stack(kkt.squared_distances(exact, factors)) * sizes
    return float((apart.sum() / sizes.sum()).sqrt())
