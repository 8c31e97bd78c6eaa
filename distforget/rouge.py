"""Fast ROUGE for many pairs of texts, over rouge-score's words or Unicode words.

Knows texts alone; which answer is compared with which, and the means over them, are for others.
Each distinct text is tokenised once, tokens become integers, n-grams of thousands of pairs are
counted in one sort, and rapidfuzz finds the longest common subsequences.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import regex
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from distforget.words import WORD, folded

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TEXTS_PER_BLOCK = 256
_PAIRS_PER_BLOCK = 1024
_STEMS_KEPT = 1 << 17
_CHARACTERS = 0x110000 - 0x800  # Unicode without the surrogates, which no codec takes
# Texts are lower case when they are joined, so a capital can part them. In rouge-score's words it
# is the one byte besides a-z and 0-9 that is kept: every byte of a non-ASCII character is 0x80 or
# above, hence a space.
_SEPARATOR = "A"
_TO_SPACES = bytes(
    byte if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789A" else 0x20 for byte in range(256)
)
_UNSEEN = regex.compile(r"[^\W\x00-\x7f]")


def need_unicode_words(texts: Iterable[str]) -> bool:
    """Whether a text has letters or digits beyond ASCII, which rouge-score's words lack.

    Other signs beyond ASCII, such as typographic quotes, part words of both kinds.
    """
    return any(not text.isascii() and _UNSEEN.search(text) is not None for text in texts)


def rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    use_stemmer: bool,
    unicode_words: bool = False,
) -> pa.Table:
    """ROUGE-1, ROUGE-2 and ROUGE-L of each prediction against the reference at its place.

    With m the unigrams (1), bigrams (2) or longest common subsequence (L) that both texts share,
    precision = m / those of the prediction, recall = m / those of the reference and
    fmeasure = 2 * precision * recall / (precision + recall); 0 where a denominator is 0.

    Args:
        predictions: generated answers.
        references: true answers, as many.
        use_stemmer: compare Porter stems instead of words (words of more than 3 characters); of
            rouge-score's words alone, since the stems are English.
        unicode_words: instead of rouge-score's words, runs of a-z and 0-9 in lower case, compare
            those of Unicode's default rules (UAX 29) that hold a letter or digit, in NFC, with case
            folded; in scripts that put no spaces between words each character is a word.

    Returns:
        One row a pair, in order: float64 columns {rouge1,rouge2,rougeL}_{precision,recall,
        fmeasure}, all in 0..1.

    Raises:
        ValueError: the two are of unequal length.

    Source: Lin 2004, ROUGE; with its words numbers equal those of the package rouge-score 0.1.2
    (paper section 5, KM = ROUGE(M(q), a)).
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"rouge_scores: {len(predictions)} predictions and {len(references)} references; "
            "each prediction needs one reference"
        )
    texts = list(dict.fromkeys(chain(predictions, references)))
    index_of = dict(zip(texts, range(len(texts)), strict=True))
    both = map(index_of.__getitem__, chain(predictions, references))
    pairs_2P = np.fromiter(both, np.int64, 2 * len(predictions)).reshape(2, -1)
    tokens = _tokenise(texts, use_stemmer, unicode_words)
    predicted_P, expected_P = tokens.counts[pairs_2P]
    shared = _shared_ngrams(tokens, pairs_2P)
    totals = {
        "rouge1": (shared[0], predicted_P, expected_P),
        "rouge2": (shared[1], predicted_P - 1, expected_P - 1),
        "rougeL": (_longest_common(tokens, pairs_2P), predicted_P, expected_P),
    }
    columns: dict[str, Floats] = {}
    for name, (shared_P, of_predicted_P, of_expected_P) in totals.items():
        precision_P = shared_P / np.maximum(of_predicted_P, 1)
        recall_P = shared_P / np.maximum(of_expected_P, 1)
        # Where nothing is shared the numerator is 0, whatever it is divided by.
        sum_P = np.where(shared_P > 0, precision_P + recall_P, 1.0)
        columns[f"{name}_precision"] = precision_P
        columns[f"{name}_recall"] = recall_P
        columns[f"{name}_fmeasure"] = 2 * precision_P * recall_P / sum_P
    return pa.table(columns)


class _Tokens(NamedTuple):
    """Token ids of distinct texts: text i is ids[starts[i] :][: counts[i]], then a 0."""

    ids: Ints
    starts: Ints
    counts: Ints
    vocabulary_size: int


class _Vocabulary(dict[str | bytes, int]):
    """Maps words to token ids; a new word gets the next id, or the id of its stem."""

    def __init__(self, stem: Callable[[Any], bytes] | None) -> None:
        super().__init__({_SEPARATOR: 0, _SEPARATOR.encode(): 0})
        self._stem = stem
        self._ids: dict[str | bytes, int] = {}

    def __missing__(self, word: str | bytes) -> int:
        stem = self._stem(word) if self._stem and len(word) > 3 else word
        # Not through self[stem]: a stem longer than 3 characters must not be stemmed again.
        identity = self._ids.setdefault(stem, len(self._ids) + 1)
        self[word] = identity
        return identity

    def size(self) -> int:
        """Ids given so far, the separator's 0 included."""
        return len(self._ids) + 1


@cache
def _porter_stemmer() -> Callable[[str], str]:
    # Here and not above: nltk takes most of a second to import, and few callers stem.
    from nltk.stem.porter import PorterStemmer

    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


@lru_cache(maxsize=_STEMS_KEPT)
def _stem(word: bytes) -> bytes:
    """The Porter stem of a lower-case ASCII word."""
    return _porter_stemmer()(word.decode()).encode()


def _tokenise(texts: list[str], use_stemmer: bool, unicode_words: bool) -> _Tokens:
    vocabulary = _Vocabulary(_stem if use_stemmer and not unicode_words else None)
    split = _unicode_words if unicode_words else _rouge_score_words
    blocks = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(texts), _TEXTS_PER_BLOCK):
        found = split(texts[start : start + _TEXTS_PER_BLOCK])
        blocks.append(np.fromiter(map(vocabulary.__getitem__, found), np.int64, len(found)))
    ids = np.concatenate(blocks)
    separators = np.flatnonzero(ids == 0)
    return _Tokens(ids, separators[:-1] + 1, np.diff(separators) - 1, vocabulary.size())


def _rouge_score_words(texts: Sequence[str]) -> list[bytes]:
    """Lower-cased runs of a-z and 0-9, as in the original ROUGE, with separators between texts."""
    joined = f" {_SEPARATOR} ".join([*[text.lower() for text in texts], ""])
    # A lone surrogate is no text in UTF-8, yet a model's broken output may hold one.
    return joined.encode("utf-8", "surrogatepass").translate(_TO_SPACES).split()


def _unicode_words(texts: Sequence[str]) -> list[str]:
    """Words by UAX 29, case-folded and in NFC, with separators between texts."""
    found: list[str] = WORD.findall(f"\n{_SEPARATOR}\n".join([*map(folded, texts), ""]))
    return found


def _shared_ngrams(tokens: _Tokens, pairs_2P: Ints) -> tuple[Ints, Ints]:
    """Number of unigrams and bigrams that both texts of a pair share, each (P,)."""
    # An n-gram's key is (pair, word, word, side) in 63 bits.
    most = (1 << 62) // tokens.vocabulary_size**2
    size = max(1, min(_PAIRS_PER_BLOCK, most))
    unigrams_P = np.zeros(pairs_2P.shape[1], dtype=np.int64)
    bigrams_P = np.zeros(pairs_2P.shape[1], dtype=np.int64)
    for start in range(0, pairs_2P.shape[1], size):
        block_2P = pairs_2P[:, start : start + size]
        pairs = block_2P.shape[1]
        counts = tokens.counts[block_2P].ravel()
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(
            tokens.starts[block_2P].ravel() - ends + counts, counts
        )
        pair = np.repeat(np.tile(np.arange(pairs), 2), counts)
        side = (np.arange(ends[-1]) >= ends[pairs - 1]).astype(np.int64)
        words = tokens.ids[at]
        unigram = pair * tokens.vocabulary_size + words
        # Every text is followed by a separator, so a last word's "bigram" ends in 0.
        following = tokens.ids[at + 1]
        inside = following > 0
        bigram = (unigram * tokens.vocabulary_size + following)[inside]
        stop = start + pairs
        unigrams_P[start:stop] = _shared(unigram, side, tokens.vocabulary_size, pairs)
        bigrams_P[start:stop] = _shared(bigram, side[inside], tokens.vocabulary_size**2, pairs)
    return unigrams_P, bigrams_P


def _shared(keys: Ints, side: Ints, keys_per_pair: int, pairs: int) -> Ints:
    """(pairs,): sum over each pair's keys of min(times on side 0, times on side 1)."""
    if not len(keys):
        return np.zeros(pairs, dtype=np.int64)
    both = keys * 2 + side
    both.sort()
    key = both >> 1
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    times_1 = np.add.reduceat(both & 1, first)
    times_0 = np.diff(first, append=len(key)) - times_1
    shared = np.minimum(times_0, times_1)
    return np.bincount(key[first] // keys_per_pair, shared, pairs).astype(np.int64)


def _longest_common(tokens: _Tokens, pairs_2P: Ints) -> Ints:
    """(P,): length in tokens of each pair's longest common subsequence."""
    if tokens.vocabulary_size < _CHARACTERS:
        # A token as one character: rapidfuzz is fastest on strings.
        text = np.where(tokens.ids < 0xD800, tokens.ids, tokens.ids + 0x800).astype("<u4")
        whole: Sequence[Hashable] = text.tobytes().decode("utf-32-le")
    else:
        whole = tokens.ids.tolist()
    starts = tokens.starts.tolist()
    ends = (tokens.starts + tokens.counts).tolist()
    texts = [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    predictions, references = ([texts[index] for index in side] for side in pairs_2P.tolist())
    lengths: Ints = cpdist(
        predictions, references, scorer=LCSseq.similarity, dtype=np.int64, workers=1
    )
    return lengths
