"""Reads training images out of an MLP's weights: solves its KKT equations for samples.

Knows the weights, the architecture and the mean image of the pool; it sees no training sample, and
whether what it found resembles one is for others to judge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from distforget.image_config import ReconstructionConfig
from distforget.imaging import kkt
from distforget.imaging.fitting import Labelled
from distforget.imaging.models import MLP
from distforget.imaging.slopes import residual


class Reconstruction(NamedTuple):
    """What was read out of a model."""

    images_NCHW: Tensor
    """Pixels, the mean image added; not clipped."""
    multipliers: Tensor
    """(N,) how much each candidate contributes to the weights."""
    labels_N: Tensor
    """The class that each candidate was sought for."""
    residual: float
    """|theta - sum of the candidates' gradients| / |theta|, as `fitting.Point.kkt_residual`."""
    residual_free: float | None = None
    """The same with the slopes at kinks free, see `slopes`; None where there are none to free."""


def candidate_labels(num_candidates: int, classes: int) -> Tensor:
    """The class of each candidate: all classes in turn."""
    return torch.arange(num_candidates) % classes


def reconstruct(
    model: MLP,
    num_candidates: int,
    config: ReconstructionConfig,
    generator: torch.Generator,
    mean_CHW: Tensor | None = None,
    std_CHW: Tensor | None = None,
    left: MLP | None = None,
) -> Reconstruction:
    """Candidates x_i and multipliers lambda_i that make up the weights.

    Minimises sum over layers |theta_l - G_l|^2 / |theta_l|^2, G = sum_i lambda_i grad m_i (see
    `kkt`), and the priors on pixels. Runs where the model is, in its dtype. Of several starts the
    one of least objective is taken.

    Of a model that is not stationary the weights are no such sum, but the negative gradient of its
    cross-entropy always is; who has it, e.g. from an optimiser's state, gives it as `left`.

    Args:
        model: as trained; its inputs were (pixels - mean_CHW) / std_CHW.
        num_candidates: about twice the number of training samples; labels are spread evenly.
        generator: of the random starts, on the model's device.
        mean_CHW: the pool's mean image, which the attacker knows; None: images were not centred.
        std_CHW: what centred images were divided by; None: by nothing.
        left: what to explain instead of the weights, in the form of the model.
    """
    shape = model.config.image_shape
    inputs = Inputs(
        torch.zeros(shape) if mean_CHW is None else mean_CHW,
        torch.ones(shape) if std_CHW is None else std_CHW.expand(shape),
    )
    attempts = [
        _Attempt(model, left or model, num_candidates, config, generator, inputs)
        for _ in range(config.restarts)
    ]
    for quarter in (1, 2, 3):
        if len(attempts) > 1:
            for attempt in attempts:
                attempt.advance(config.steps * quarter // 4)
            attempts = sorted(attempts, key=_Attempt.objective)[: math.ceil(len(attempts) / 2)]
    for attempt in attempts:
        attempt.advance(config.steps)
    return min(attempts, key=_Attempt.objective).result()


class Inputs(NamedTuple):
    """How pixels become a model's inputs: (pixels - mean) / std."""

    mean_CHW: Tensor
    std_CHW: Tensor


class _Attempt:
    """One start and how far it has come."""

    def __init__(
        self,
        model: MLP,
        left: MLP,
        num_candidates: int,
        config: ReconstructionConfig,
        generator: torch.Generator,
        inputs: Inputs,
    ) -> None:
        weight = kkt.linear_layers(model)[0].weight.detach()
        self.model, self.left, self.config, self.step = model, left, config, 0
        self.mean_D, self.std_D = (part.flatten().to(weight) for part in inputs)
        self.unit = float(self.std_D.mean())
        """Of the coordinates in units of inputs, so that steps are those of pixels."""
        self.labels_N = candidate_labels(num_candidates, model.config.classes).to(weight.device)
        self.basis_KD = _span(left, num_candidates, config)
        # Solved in coordinates, which are fewer than pixels: half the work.
        self.solved, self.explained = (
            part if self.basis_KD is None else kkt.on_span(part, self.basis_KD)
            for part in (model, left)
        )
        width = kkt.linear_layers(self.solved)[0].in_features
        start_NK = weight.new_empty(num_candidates, width).normal_(generator=generator)
        self.coordinates_NK = (config.start_scale * start_NK).requires_grad_()
        self.log_multipliers_N = weight.new_zeros(num_candidates).requires_grad_()
        self._calibrate()
        self.optimizer = torch.optim.Adam(
            [self.coordinates_NK, self.log_multipliers_N], lr=config.learning_rate, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, config.steps)

    def advance(self, until: int) -> None:
        """Take steps up to a number of them."""
        while self.step < until:
            self.optimizer.zero_grad()
            pixels_ND = self._pixels()
            push_ND = pixel_prior_gradient(pixels_ND.detach(), self.config)
            torch.autograd.backward((self._distance(), pixels_ND), (None, push_ND))
            self.optimizer.step()
            self.schedule.step()
            self.step += 1

    @torch.no_grad()
    def objective(self) -> float:
        """What is minimised, at this step's sharpness."""
        return float(self._distance() + pixel_prior(self._pixels(), self.config))

    @torch.no_grad()
    def result(self) -> Reconstruction:
        """The candidates as they are, and how well they solve the equations."""
        candidates_ND = self._candidates()
        factors = self._factors(self.model, candidates_ND, kkt.step)
        sizes = torch.stack([kkt.squared_norm(layer) for layer in kkt.linear_layers(self.left)])
        apart = torch.stack(kkt.squared_distances(self.left, factors)) * sizes
        images_NCHW = self._pixels().reshape(-1, *self.model.config.image_shape)
        fixed, free = float((apart.sum() / sizes.sum()).sqrt()), None
        multipliers_N = self.log_multipliers_N.exp()
        if self.left is self.model:
            solution = Labelled(candidates_ND, self.labels_N)
            free = residual(self.model, solution, multipliers_N, free=True)
        return Reconstruction(images_NCHW, multipliers_N, self.labels_N, fixed, free)

    def _inputs(self) -> Tensor:
        """Of the network that is solved: coordinates in the span, or all of an image."""
        return self.coordinates_NK / self.unit

    def _candidates(self) -> Tensor:
        """As the model takes them."""
        return self._inputs() if self.basis_KD is None else self._inputs() @ self.basis_KD

    def _pixels(self) -> Tensor:
        return self._candidates() * self.std_D + self.mean_D

    def _factors(self, model: MLP, inputs_NI: Tensor, slope: kkt.Slope) -> list[kkt.Factor]:
        multipliers_N = self.log_multipliers_N.exp()
        return kkt.margin_factors(model, inputs_NI, self.labels_N, multipliers_N, slope)

    def _slope(self) -> kkt.Slope:
        start, end = self.config.sharpness_start, self.config.sharpness_end
        return kkt.sigmoid(start * (end / start) ** (self.step / self.config.steps))

    def _distance(self) -> Tensor:
        factors = self._factors(self.solved, self._inputs(), self._slope())
        return torch.stack(kkt.squared_distances(self.explained, factors)).sum()

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Scale all multipliers so that the first gradients have a set share of the weights' norm.

        Not by least squares: random candidates are as often as not turned away from the weights.
        """
        factors = self._factors(self.solved, self._inputs(), self._slope())
        norms = kkt.relative_squared_norms(self.explained, factors)
        share = self.config.start_share / math.sqrt(float(torch.stack(norms).mean()))
        self.log_multipliers_N += math.log(share)


def pixel_prior(pixels_ND: Tensor, config: ReconstructionConfig) -> Tensor:
    """What images are like: pixels between 0 and 1, and most of them 0; means over pixels."""
    beyond_ND = torch.relu(-pixels_ND) + torch.relu(pixels_ND - 1)
    prior = config.range_weight * beyond_ND.square().mean()
    if config.sparse_weight:
        bright = torch.log1p(pixels_ND.abs() / config.sparse_width).mean()
        prior = prior + config.sparse_weight * bright
    return prior


def pixel_prior_gradient(pixels_ND: Tensor, config: ReconstructionConfig) -> Tensor:
    """The gradient of `pixel_prior`, in a third of autograd's passes over the pixels."""
    gradient_ND = (pixels_ND - pixels_ND.clamp(0, 1)).mul_(2 * config.range_weight)
    if config.sparse_weight:
        bright_ND = (pixels_ND.abs() + config.sparse_width).copysign_(pixels_ND)
        gradient_ND += bright_ND.reciprocal_().mul_(config.sparse_weight)
    return gradient_ND / pixels_ND.numel()


def _span(model: MLP, num_candidates: int, config: ReconstructionConfig) -> Tensor | None:
    """Orthonormal rows that span the candidates (K, D), None for all images.

    At a stationary point the rows of [W1 | b1] are combinations of the training samples' [x, 1].
    """
    if not config.span:
        return None
    layer = kkt.linear_layers(model)[0]
    rank = max(1, round(config.span * num_candidates))
    rows_KD = kkt.right_singular_vectors(layer, rank)[:, : layer.in_features]
    basis_KD: Tensor = torch.linalg.qr(rows_KD.T).Q.T
    return basis_KD
