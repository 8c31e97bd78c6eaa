"""Permutations of very many numbers, computed one number at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from distforget.draws import rng


@dataclass(frozen=True)
class Shuffle:
    """An affine permutation of 0 to size-1."""

    size: int
    multiplier: int
    offset: int

    def __call__(self, index: int) -> int:
        """The place of `index` in the permutation."""
        return (self.multiplier * index + self.offset) % self.size


@lru_cache(maxsize=4096)
def shuffle(size: int, seed: int, *about: str | int) -> Shuffle:
    """A permutation drawn from (seed, what it is about); its multiplier is far from 0 and size."""
    draw = rng(seed, "biographies", *about)
    multiplier = int(draw.integers(size // 4, 3 * size // 4))
    while math.gcd(multiplier, size) != 1:
        multiplier += 1
    return Shuffle(size, multiplier, int(draw.integers(size)))
