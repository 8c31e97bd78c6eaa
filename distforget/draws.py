"""Random draws that depend only on the study's seed and on their topic."""

from __future__ import annotations

import hashlib

import numpy as np


def generator_seed(study_seed: int, *about: str | int) -> int:
    """A 63-bit seed from the study's seed and a topic, e.g. ('retain', 'smollm2', 50)."""
    text = "\x1f".join([str(study_seed), *map(str, about)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(study_seed: int, *about: str | int) -> np.random.Generator:
    """A generator seeded by :func:`generator_seed`: equal topics give equal draws."""
    return np.random.Generator(np.random.PCG64(generator_seed(study_seed, *about)))
