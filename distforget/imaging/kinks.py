"""Kinks: hidden ReLUs whose edge runs through a sample.

The loss of a ReLU network is smooth but for the places where a hidden unit of some training image
changes its sign. Training whose learning rate decays comes to rest on such kinks, so training
images lie on the edges of units and others do not. A sample with kinks was trained on, nearly
surely; one without may have been.

How close a sample is to an edge is measured as an angle, |w x + b| / (|w, b| |x, 1|): the same
whatever the scale of weights and inputs, and above what rounding to float32, float16 or bfloat16
adds.

Source: measured here, see `benchmarks/membership.py`; that attacks find support vectors on kinks:
Haim et al. 2022, "Reconstructing Training Data from Trained Neural Networks".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distforget.imaging.models import MLP

ON_THE_EDGE = 1e-4
"""Sine of the angle under which a unit counts as a kink."""
NEAR = 1e-3
"""Sine of the angle below which a unit adds to the closeness."""


@torch.no_grad()
def angles(model: MLP, images_NCHW: Tensor) -> Tensor:
    """Sine of the angle between each sample and each hidden unit's edge: (N, H), float64.

    Units of all hidden layers, first to last. 1 where a unit has no edge, since its weights are 0,
    and where a sample gives a layer nothing but zeros.

    Args:
        images_NCHW: as the model takes them, the mean image subtracted.
    """
    inputs_NI, found = images_NCHW.double().flatten(1), []
    for layer in model.layers[:-1]:
        assert isinstance(layer, nn.Linear)
        weight_OI, bias_O = layer.weight.double(), layer.bias
        z_NO = inputs_NI @ weight_OI.T
        size_O, size_N = weight_OI.square().sum(1), inputs_NI.square().sum(1)
        if bias_O is not None:
            z_NO = z_NO + bias_O.double()
            size_O, size_N = size_O + bias_O.double().square(), size_N + 1
        size_NO = torch.outer(size_N, size_O).sqrt()
        found.append(torch.where(size_NO > 0, z_NO.abs() / size_NO, 1.0))
        inputs_NI = z_NO.relu()
    return torch.cat(found, 1)


def telling_units(angles_MH: Tensor) -> Tensor:
    """Units that are not on the edge for most samples, as dead and constant ones are: (H,) bool.

    Args:
        angles_MH: of samples that were never trained on.
    """
    return (angles_MH < ON_THE_EDGE).double().mean(0) <= 0.5


def count(angles_NH: Tensor) -> Tensor:
    """How many kinks each sample lies on: (N,)."""
    return (angles_NH < ON_THE_EDGE).sum(1).double()


def closeness(angles_NH: Tensor) -> Tensor:
    """How close each sample is to kinks: sum over units of log10(1 + NEAR/angle), (N,).

    A unit adds 1 at a tenth of NEAR, 2 at a hundredth. Tells members better than the count does,
    since nothing hangs on where a kink begins.
    """
    tiny = torch.finfo(torch.float64).eps
    return torch.log10(1 + NEAR / angles_NH.clamp(min=tiny)).sum(1)
