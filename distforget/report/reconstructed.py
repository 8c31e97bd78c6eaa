"""Attacks a classifier given as files, and draws what it finds."""

from __future__ import annotations

from pathlib import Path

from distforget.image_config import ImageConfig
from distforget.report.figure_style import formats, write
from distforget.report.pictures import grid
from distforget.tracks.image.attack import attack
from distforget.tracks.image.models import load

SHOWN = 100


def write_picture(folder: Path, samples: int, seed: int, device: str, path: Path) -> float:
    """Write the candidates of largest multipliers as a picture; the attack's relative residual.

    Raises:
        UsageError: the files are no classifier.
    """
    found = attack(load(folder).to(device), samples, ImageConfig(), seed)
    order = found.multipliers.argsort(descending=True)[:SHOWN]
    pixels_NCHW = (found.images_NCHW[order].clamp(0, 1) * 255).round().byte()
    figure = grid(pixels_NCHW.permute(0, 2, 3, 1).cpu().numpy())
    write(figure, path.with_suffix(""), formats(path.suffix.lstrip(".") or "png"))
    return found.residual
