"""Refuses metrics that cannot see a study's answers, before hours are spent; knows no models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from distforget import selection
from distforget.study import Study, UsageError, VerifyConfig
from distforget.tracks.text.rouge import need_unicode_words, rouge_scores
from distforget.tracks.text.sources import files


def scored_answers(samples: pa.Table) -> list[str]:
    """True answers that free answers are held against; a choice among some is right or wrong."""
    found: list[str] = samples.filter(samples["choices"].is_null())["answer"].to_pylist()
    return found


def with_words(verify: VerifyConfig, samples: pa.Table) -> VerifyConfig:
    """The same with `words` as the whole dataset asks for, so that all its scores are alike."""
    if verify.words != "auto":
        return verify
    unicode = need_unicode_words(scored_answers(samples))
    return verify.model_copy(update={"words": "unicode" if unicode else "rouge-score"})


def check_metrics(study: Study, samples: pa.Table) -> None:
    """See that each metric gives the true answers that are asked for what a perfect model gets.

    Args:
        samples: the whole dataset.

    Raises:
        UsageError: a metric does not; names file, row and fix.
    """
    verify = with_words(study.verify, samples)
    targets = range(1, study.unlearn_targets + 1)
    answers = list(dict.fromkeys(scored_answers(selection.asked_rows(samples, targets, study))))
    unicode_words = verify.words == "unicode"
    table = rouge_scores(answers, answers, verify.use_stemmer, unicode_words)

    def place(answer: str) -> str:
        return files.place_of(answer, study.dataset)

    if not unicode_words:
        seen = [_share_of_ascii(answer) for answer in answers]
        refuse_blind("rouge-score's words", seen, answers, place, TO_UNICODE, least=0.5)
    for metric in verify.metrics:
        if metric in table.column_names:
            fix = TO_LEAVE_OUT if metric.startswith("rouge2") else TO_WRITE
            refuse_blind(metric, table[metric].to_numpy(), answers, place, fix)


TO_UNICODE = "set verify.words to auto: these words are runs of a-z and 0-9 and drop all others"
TO_LEAVE_OUT = "it counts pairs of words: take it out of verify.metrics, or write a longer answer"
TO_WRITE = "write an answer with a letter or digit, or delete the row"


def _share_of_ascii(answer: str) -> float:
    """Of an answer's letters and digits; 1 where it has none."""
    ascii_N = [sign.isascii() for sign in answer if sign.isalnum()]
    return float(np.mean(ascii_N)) if ascii_N else 1.0


def refuse_blind(
    metric: str,
    perfect_N: ArrayLike,
    answers: Sequence[str],
    place: Callable[[str], str],
    fix: str,
    least: float = 1.0,
) -> None:
    """Refuse a metric that does not know the true answer when it sees it.

    Args:
        perfect_N: what each true answer scores as the answer to its question.
        place: where an answer stands, e.g. 'data.csv: line 3'.
        least: what it must score; less by rounding is enough.

    Raises:
        UsageError: an answer scores less.
    """
    for score, answer in zip(np.asarray(perfect_N).tolist(), answers, strict=True):
        if not score > least - 1e-6:
            shown = answer if len(answer) <= 40 else f"{answer[:40]}…"
            raise UsageError(
                f"{place(answer)}, column 'answer': {metric} cannot see {shown!r}: the true answer "
                f"itself scores {score:.2f}, at least {least:g} is needed; {fix}"
            )
