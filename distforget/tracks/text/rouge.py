"""ROUGE of many pairs of texts at once, equal to the rouge-score package and much faster.

Knows texts alone; which answer is compared with which, and the means over them, are for others.
Each distinct text is tokenised once, tokens become integers, n-grams of thousands of pairs are
counted in one sort, and rapidfuzz finds the longest common subsequences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TEXTS_PER_BLOCK = 4096
_PAIRS_PER_BLOCK = 1024
_STEMS_KEPT = 1 << 17
# Texts are lower case when they are joined, so a capital can part them: the one byte besides
# a-z and 0-9 that is kept. Every byte of a non-ASCII character is 0x80 or above, hence a space.
_SEPARATOR = b"A"
_TO_SPACES = bytes(
    byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789A" else 0x20 for byte in range(256)
)


class _Tokens(NamedTuple):
    """Token ids (1, 2, ...) of U distinct texts: text u is ids[starts[u] : starts[u] + counts[u]]."""

    ids: Ints
    starts_U: Ints
    counts_U: Ints
    vocabulary_size: int


class _Vocabulary(dict[bytes, int]):
    """Token id by word; a new word gets the next id, or its stem's."""

    def __init__(self, use_stemmer: bool) -> None:
        super().__init__({_SEPARATOR: 0})
        self._use_stemmer = use_stemmer

    def __missing__(self, word: bytes) -> int:
        stem = _stem(word) if self._use_stemmer and len(word) > 3 else word
        # Not through self[stem]: a stem longer than 3 characters must not be stemmed again.
        identity = self._ids.setdefault(stem, len(self._ids) + 1)
        self[word] = identity
        return identity
