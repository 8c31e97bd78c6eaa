"""Small classifiers trained on made images, of several seeds: for what only training brings about.

Tests ask statistics over all of them, since each single number hangs on how a CPU rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from distforget.image_config import FitConfig
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.kkt import member_multipliers
from distforget.imaging.models import MLP, MLPConfig, build
from tests.strokes import strokes

WEIGHT_DECAY = 1e-3
CONFIG = MLPConfig(image_shape=(1, 16, 16), hidden=(64, 64), classes=4)
MEMBERS, STRANGERS = 16, 32
MEAN = strokes(300, 99).mean(0)


@dataclass(frozen=True)
class Trained:
    """A classifier, what it was trained on, and what it never saw."""

    model: MLP
    members: Labelled
    strangers: Labelled

    def member_multipliers(self) -> Tensor:
        """Of the members, as a stationary point has them."""
        return member_multipliers(self.model, self.members, WEIGHT_DECAY, MEMBERS)


def labelled(count: int, seed: int) -> Labelled:
    return Labelled(strokes(count, seed) - MEAN, torch.arange(count) % CONFIG.classes)


@cache
def trained_on_strokes(seeds: int = 4) -> list[Trained]:
    """Trained until nearly stationary."""
    found = []
    for seed in range(seeds):
        model = build(CONFIG, torch.Generator().manual_seed(seed))
        assert isinstance(model, MLP)
        members = labelled(MEMBERS, 2 * seed)
        fit(model, members, FitConfig(steps=2000, weight_decay=WEIGHT_DECAY))
        found.append(Trained(model, members, labelled(STRANGERS, 2 * seed + 1)))
    return found
