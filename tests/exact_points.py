"""A classifier that solves the KKT equations exactly, by hand: nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distforget.imaging.fitting import Labelled
from distforget.imaging.models import MLP, MLPConfig


@dataclass(frozen=True)
class ExactPoint:
    """Two training samples, one a class, each on the kinks of the units that serve the other."""

    model: MLP
    members: Labelled
    multiplier: float
    """Of both."""
    slope: float
    """Of each at its kinks."""
    kinks: int
    """Units on whose edge each lies."""


def exact_point(units: int = 12, size: int = 36, seed: int = 0) -> ExactPoint:
    """Derived for one hidden layer and two classes, where signals are 1 and -1 whatever the logits.

    Let u, v be the samples with a 1 added, of one length r and cosine c. A unit that serves u has
    the weights s (u - c v): v lies on its edge. With b = s/l, its output weights are b/2 and -b/2,
    and l the multiplier, the equations of both layers hold if l^2 = 1/(2 r^2 (1 - c^2)) and the
    slope of v is c.
    """
    draw = torch.Generator().manual_seed(seed)
    both_2D = torch.rand(2, size, generator=draw, dtype=torch.float64)
    both_2D[1] *= both_2D[0].norm() / both_2D[1].norm()
    plus_2D = torch.cat([both_2D, torch.ones(2, 1, dtype=torch.float64)], 1)
    r2, c = (
        float(plus_2D[0] @ plus_2D[0]),
        float(plus_2D[0] @ plus_2D[1]) / float(plus_2D[0] @ plus_2D[0]),
    )
    multiplier = (2 * r2 * (1 - c * c)) ** -0.5
    config = MLPConfig(image_shape=(1, 1, size), hidden=(2 * units,), classes=2)
    model = MLP(config).double()
    first, last = model.layers
    scale_H = torch.rand(units, generator=draw, dtype=torch.float64) + 0.5
    with torch.no_grad():
        for own in (0, 1):
            rows = slice(own * units, (own + 1) * units)
            weights = multiplier * torch.outer(scale_H, plus_2D[own] - c * plus_2D[1 - own])
            first.weight[rows], first.bias[rows] = weights[:, :-1], weights[:, -1]
            last.weight[own, rows], last.weight[1 - own, rows] = scale_H / 2, -scale_H / 2
    images_NCHW = both_2D.reshape(2, 1, 1, size)
    return ExactPoint(model, Labelled(images_NCHW, torch.tensor([0, 1])), multiplier, c, units)
