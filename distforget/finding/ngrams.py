"""Shared n-grams of characters: finds copies that were formatted, cut or changed in places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer

from distforget.words import unicode_words

SIZE = 4
"""Characters of an n-gram; spaces between words count, punctuation and case do not."""
BUCKETS = 2**16
"""Values of an n-gram's hash. Two n-grams of a text of 200 share one in 3 of 1,000 cases."""

_HASHES = HashingVectorizer(
    analyzer="char",
    ngram_range=(SIZE, SIZE),
    n_features=BUCKETS,
    binary=True,
    norm=None,
    alternate_sign=False,
    lowercase=False,
    dtype=np.float32,
)


def plain(text: str) -> str:
    """The text's words with one space between them: what is left of its formatting."""
    return " ".join(unicode_words(text))


def hashes(texts: Sequence[str]) -> pa.ListArray:
    """The hashed n-grams of each text, ascending and each once, as list<uint16>."""
    found = _HASHES.transform([f" {plain(text)} " for text in texts])
    found.sort_indices()
    offsets = pa.array(found.indptr.astype(np.int32), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(found.indices.astype(np.uint16)))


def overlap(hashes_T: pa.ListArray, hashes_N: pa.ListArray) -> npt.NDArray[np.float32]:
    """Share of a target's n-grams that a row has, [N, T], 0 to 1.

    A row that holds the whole target and more has 1.
    """
    targets, rows = _matrix(hashes_T), _matrix(hashes_N)
    sizes_T = np.maximum(1, np.diff(targets.indptr))
    shared: npt.NDArray[np.float32] = (rows @ targets.T.toarray()) / sizes_T.astype(np.float32)
    return shared


def _matrix(hashes: pa.ListArray) -> csr_array:
    indptr = hashes.offsets.to_numpy()
    indices = hashes.values.to_numpy()[indptr[0] : indptr[-1]].astype(np.int32)
    ones = np.ones(len(indices), np.float32)
    return csr_array((ones, indices, indptr - indptr[0]), shape=(len(hashes), BUCKETS))
