"""Which of a sample's facts an answer states; knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distforget.tracks.text.rouge import unicode_words


def states(answer: str, fact: str) -> bool:
    """True if the answer holds the fact's words one after the other.

    Case, punctuation and ways to write one character are ignored. Words are whole: 1950 does not
    state 195.
    """
    return _spaced(fact) in _spaced(answer)


def recall(answers: Sequence[str], facts: Sequence[Sequence[str] | None]) -> NDArray[np.float64]:
    """The share of each sample's facts that its answer states: (N,), 0 to 1.

    Unlike the share of words (ROUGE) it is 0 for an answer of the right form about something else,
    and 1 for a restatement in other words.

    Args:
        facts: of each sample, at least one each; None where there are none, masked in the result.
    """
    found = np.ma.array(np.zeros(len(answers)), mask=[of_one is None for of_one in facts])
    for row, (answer, of_one) in enumerate(zip(answers, facts, strict=True)):
        if of_one is not None:
            found[row] = np.mean([states(answer, fact) for fact in of_one])
    return found


def _spaced(text: str) -> str:
    return f" {' '.join(unicode_words(text))} "
