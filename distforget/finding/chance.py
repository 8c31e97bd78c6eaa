"""How similar random rows are to a target, and how many of them would be found by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Similarities = npt.NDArray[np.floating]

SPARED = 60
"""So many rows of the data may be similar to a target in truth without moving its cut."""
FITTED = 5
"""The tail is fitted between the similarities that `e` and FITTED * e of random rows exceed."""
LARGEST = 0.999
"""Similarities above it count as this much."""


@dataclass(frozen=True)
class Chance:
    """Similarity of random rows to one target: an exponential tail of artanh(similarity).

    It is fitted where random rows abound and extrapolated, since what lies beyond is little, and
    some of it is no accident.
    """

    start: float
    """Transformed similarity at which the tail begins."""
    above: float
    """Share of random rows beyond it."""
    scale: float

    def in_tail(self, similarity: Similarities) -> npt.NDArray[np.bool_]:
        """Whether the tail describes a similarity."""
        return _transformed(similarity) > self.start

    def share(self, similarity: Similarities | float) -> npt.NDArray[np.float64]:
        """Share of random rows that are at least so similar; 1 below the tail."""
        beyond = (_transformed(similarity) - self.start) / self.scale
        return np.where(beyond > 0, self.above * np.exp(-np.maximum(beyond, 0)), 1.0)

    def cut(self, share: float) -> float:
        """The similarity that this share of random rows reaches; at most `LARGEST`."""
        beyond = np.log(self.above / min(share, self.above))
        return float(min(np.tanh(self.start + self.scale * beyond), LARGEST))


def chance(similarities: Similarities, rows: int) -> Chance:
    """From the similarities of random rows to a target.

    Args:
        rows: of all data; sets how many of the most similar ones the fit leaves out: `SPARED`, but
            not less than 1 % and not more than 10 %.
    """
    spared = float(np.clip(SPARED / rows, 0.01, 0.1))
    above = FITTED * spared
    low, high = _transformed(np.quantile(similarities, [1 - above, 1 - spared]))
    return Chance(float(low), above, float(max(high - low, 1e-3) / np.log(FITTED)))


def _transformed(similarity: Similarities | float) -> npt.NDArray[np.float64]:
    return np.arctanh(np.clip(np.asarray(similarity, np.float64), -LARGEST, LARGEST))
