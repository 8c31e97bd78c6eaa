"""The attack on a classifier of any kind: the quick one on an MLP, through autograd on a CNN."""

from __future__ import annotations

import torch
from torch import Tensor

from distforget.image_config import ImageConfig
from distforget.tracks.image.autograd_reconstruction import reconstruct_by_autograd
from distforget.tracks.image.models import MLP, Classifier
from distforget.tracks.image.reconstruction import Reconstruction, reconstruct


def attack(
    model: Classifier,
    samples: int,
    config: ImageConfig,
    seed: int,
    mean_CHW: Tensor | None = None,
    std_CHW: Tensor | None = None,
    left: MLP | None = None,
) -> Reconstruction:
    """Candidates that make up the weights; as `reconstruction.reconstruct`.

    Args:
        left: for MLPs alone.
        samples: how many the model was trained on, as far as the attacker knows.
        seed: of the random start.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    count = round(config.candidates_per_sample * samples)
    if isinstance(model, MLP):
        return reconstruct(model, count, config.attack, generator, mean_CHW, std_CHW, left)
    return reconstruct_by_autograd(model, count, config.attack, generator, mean_CHW, std_CHW)
