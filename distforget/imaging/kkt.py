"""The KKT equations of a trained MLP as matrix products.

A stationary point of mean cross-entropy + (wd/2) |theta|^2 is a sum over its training samples,
theta = sum_i lambda_i grad_theta m_i, where m_i is the margin of sample i, its own logit minus the
others weighted by their softmax, and lambda_i = (1 - p_i) / (wd N), p_i the probability of its
class. The gradient of a margin in layer l is the outer product of two vectors, a signal that comes
back and the layer's input; so sums and inner products never need the gradient of one sample.

Source: Haim et al. 2022, "Reconstructing Training Data from Trained Neural Networks"; Buzaglo et
al. 2023, "Deconstructing Data Reconstruction" (several classes, weight decay).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distforget.imaging.fitting import Labelled
from distforget.imaging.models import MLP, Classifier

Slope = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Factor:
    """Gradients of N margins in one layer: the outer product of signal and input, row by row."""

    signal_NO: Tensor
    input_NI: Tensor


def step(z: Tensor) -> Tensor:
    """The slope of ReLU: 1 above 0."""
    return (z > 0).to(z.dtype)


def sigmoid(sharpness: float) -> Slope:
    """A smooth slope of ReLU, which attacks can follow: sigmoid(sharpness * z)."""
    return lambda z: torch.sigmoid(sharpness * z)


def margin_factors(
    model: MLP,
    images_ND: Tensor,
    labels_N: Tensor,
    multipliers_N: Tensor,
    slope: Slope | Sequence[Tensor] = step,
) -> list[Factor]:
    """Gradients of the margins of N flattened images, times their multipliers, layer by layer.

    Args:
        slope: of ReLU by its input, or of each hidden layer as it is, (N, H).
    """
    layers = linear_layers(model)
    inputs, slopes = [images_ND], []
    for number, layer in enumerate(layers[:-1]):
        z_NH = layer(inputs[-1])
        inputs.append(torch.relu(z_NH))
        slopes.append(slope(z_NH) if callable(slope) else slope[number])
    signal = multipliers_N[:, None] * output_signal(layers[-1](inputs[-1]), labels_N)
    signals = [signal]
    for layer, slope_NH in zip(reversed(layers[1:]), reversed(slopes), strict=True):
        signal = (signal @ layer.weight.detach()) * slope_NH
        signals.append(signal)
    return [Factor(s, i) for s, i in zip(reversed(signals), inputs, strict=True)]


@torch.no_grad()
def member_multipliers(
    model: Classifier, samples: Labelled, weight_decay: float, num_train: int
) -> Tensor:
    """lambda of each sample at a stationary point, were it a training sample: (N,), float64."""
    logits_NK = model(samples.images_NCHW.to(next(model.parameters()))).double()
    others_NK = logits_NK.log_softmax(1).scatter(1, samples.labels_N[:, None], -torch.inf)
    multipliers_N: Tensor = others_NK.logsumexp(1).exp() / (weight_decay * num_train)
    return multipliers_N


def output_signal(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """The slope of each margin by the logits: 1 for its own, minus their softmax for the others."""
    own_NK = nn.functional.one_hot(labels_N, logits_NK.shape[1]).to(logits_NK.dtype)
    return own_NK - logits_NK.masked_fill(own_NK.bool(), -torch.inf).softmax(1)


def linear_layers(model: MLP) -> list[nn.Linear]:
    """The layers of an MLP, first to last."""
    return [layer for layer in model.layers if isinstance(layer, nn.Linear)]


def on_span(model: MLP, basis_KD: Tensor) -> MLP:
    """The same network for inputs given by their coordinates in an orthonormal basis (K, D).

    Its equations are the model's, less what of the first layer no input of the span can explain.
    """
    found = copy.deepcopy(model)
    first = linear_layers(found)[0]
    first.weight = nn.Parameter(first.weight.detach() @ basis_KD.T)
    first.in_features = len(basis_KD)
    found.config = model.config.model_copy(update={"image_shape": (1, 1, len(basis_KD))})
    return found


def squared_distances(model: MLP, factors: Sequence[Factor]) -> list[Tensor]:
    """|theta_l - sum of the gradients|^2 / |theta_l|^2 of each layer, its bias included."""
    found = []
    for layer, factor in zip(linear_layers(model), factors, strict=True):
        apart = (layer.weight.detach() - factor.signal_NO.T @ factor.input_NI).square().sum()
        if layer.bias is not None:
            apart = apart + (layer.bias.detach() - factor.signal_NO.sum(0)).square().sum()
        found.append(apart / squared_norm(layer))
    return found


def squared_norm(layer: nn.Linear) -> Tensor:
    """|theta_l|^2 of a layer, its bias included."""
    return sum((p.detach().square().sum() for p in layer.parameters()), torch.zeros(()))


def relative_squared_norms(model: MLP, factors: Sequence[Factor]) -> list[Tensor]:
    """|sum of the gradients|^2 / |theta_l|^2 of each layer, its bias included."""
    found = []
    for layer, factor in zip(linear_layers(model), factors, strict=True):
        norm = (factor.signal_NO.T @ factor.input_NI).square().sum()
        if layer.bias is not None:
            norm = norm + factor.signal_NO.sum(0).square().sum()
        found.append(norm / squared_norm(layer))
    return found


def gram(model: MLP, left: Sequence[Factor], right: Sequence[Factor]) -> Tensor:
    """Inner products of N with M gradients: (N, M)."""
    found = torch.zeros(())
    for layer, one, other in zip(linear_layers(model), left, right, strict=True):
        inputs_NM = one.input_NI @ other.input_NI.T
        if layer.bias is not None:
            inputs_NM = inputs_NM + 1
        found = found + (one.signal_NO @ other.signal_NO.T) * inputs_NM
    return found


def own(model: MLP, factors: Sequence[Factor]) -> Tensor:
    """Squared norms of N gradients: (N,)."""
    found = torch.zeros(())
    for layer, factor in zip(linear_layers(model), factors, strict=True):
        inputs_N = factor.input_NI.square().sum(1) + (layer.bias is not None)
        found = found + factor.signal_NO.square().sum(1) * inputs_N
    return found


def projections(model: MLP, factors: Sequence[Factor]) -> Tensor:
    """Inner products of N gradients with the weights: (N,)."""
    found = torch.zeros(())
    for layer, factor in zip(linear_layers(model), factors, strict=True):
        found = found + (factor.signal_NO * layer(factor.input_NI).detach()).sum(1)
    return found


def right_singular_vectors(layer: nn.Linear, rank: int) -> Tensor:
    """The top right singular vectors of [W | b] (of W without a bias): (K, D + 1), orthonormal.

    K is less than asked where there are no more.
    """
    bias = [] if layer.bias is None else [layer.bias.detach()[:, None]]
    rows_OI = torch.cat([layer.weight.detach(), *bias], 1)
    basis_KI: Tensor = torch.linalg.svd(rows_OI, full_matrices=False).Vh[:rank]
    return basis_KI
