"""Chooses the attack for a classifier: the fast one for MLPs, autograd for CNNs."""

from __future__ import annotations

import torch
from torch import Tensor

from distforget.image_config import ReconstructionConfig
from distforget.imaging.autograd_reconstruction import reconstruct_by_autograd
from distforget.imaging.models import MLP, Classifier
from distforget.imaging.reconstruction import Reconstruction, reconstruct


def attack(
    model: Classifier,
    samples: int,
    config: ReconstructionConfig,
    seed: int,
    mean_CHW: Tensor | None = None,
    std_CHW: Tensor | None = None,
    left: MLP | None = None,
) -> Reconstruction:
    """Reconstruct candidates from the weights; see `reconstruction.reconstruct`.

    Args:
        left: for MLPs alone.
        samples: how many the model was trained on, as far as the attacker knows.
        seed: of the random start.
    """
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    count = round(config.candidates_per_sample * samples)
    if isinstance(model, MLP):
        return reconstruct(model, count, config, generator, mean_CHW, std_CHW, left)
    return reconstruct_by_autograd(model, count, config, generator, mean_CHW, std_CHW)
