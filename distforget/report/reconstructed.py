"""Attacks a classifier given as files, and draws what it finds."""

from __future__ import annotations

from pathlib import Path

import torch

from distforget.image_config import ImageConfig
from distforget.report.figure_style import formats, write
from distforget.report.pictures import grid
from distforget.tracks.image.autograd_reconstruction import reconstruct_by_autograd
from distforget.tracks.image.models import MLP, load
from distforget.tracks.image.reconstruction import reconstruct

SHOWN = 100


def write_picture(folder: Path, samples: int, seed: int, device: str, path: Path) -> float:
    """Write the candidates of largest multipliers as a picture; the attack's relative residual.

    Raises:
        UsageError: the files are no classifier.
    """
    model = load(folder).to(device)
    config = ImageConfig()
    count = round(config.candidates_per_sample * samples)
    generator = torch.Generator(device).manual_seed(seed)
    if isinstance(model, MLP):
        found = reconstruct(model, count, config.attack, generator)
    else:
        found = reconstruct_by_autograd(model, count, config.attack, generator)
    order = found.multipliers.argsort(descending=True)[:SHOWN]
    pixels_NCHW = (found.images_NCHW[order].clamp(0, 1) * 255).round().byte()
    figure = grid(pixels_NCHW.permute(0, 2, 3, 1).cpu().numpy())
    write(figure, path.with_suffix(""), formats(path.suffix.lstrip(".") or "png"))
    return found.residual
