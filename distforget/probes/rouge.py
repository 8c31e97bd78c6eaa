"""ROUGE between answers and expected answers: the paper's knowledge memorisation KM (Eq. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike
from pydantic import Field, field_validator

from distforget.errors import UsageError
from distforget.metrics import UNICODE
from distforget.parts import Part
from distforget.probes import Metric, Probe, Scores, TextEvidence, free_answers, free_rows, spread
from distforget.rouge import need_unicode_words, rouge_scores

KNOWN = tuple(f"rouge{n}_{part}" for n in "12L" for part in ("precision", "recall", "fmeasure"))


class RougeConfig(Part):
    """Words that answer and true answer share."""

    kind: Literal["rouge"] = "rouge"
    metrics: tuple[str, ...] = Field(
        ("rougeL_recall", "rougeL_fmeasure", "rouge1_recall"),
        min_length=1,
        description=f"written to scores, out of {', '.join(KNOWN)}",
    )
    words: Literal["auto", "rouge-score", "unicode"] = Field(
        "auto",
        description="what is counted. rouge-score: runs of a-z and 0-9, as published numbers do; "
        "unicode: words of all languages, in scores whose names end in _unicode; auto: rouge-score "
        "unless an answer of the dataset has other letters",
    )
    use_stemmer: bool = Field(True, description="English stems, of rouge-score's words alone")

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(KNOWN))
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(KNOWN)}")
        return value


def run(evidence: TextEvidence, config: RougeConfig) -> Scores:
    """The scores of free answers; a choice among some is right or wrong, and has none."""
    rows = free_rows(evidence.samples)
    if not rows:
        return Scores({})
    answers = evidence.answers()
    true = evidence.samples["answer"].to_pylist()
    unicode = _counts_unicode(config, lambda: evidence.other_scripts)
    table = rouge_scores(
        [answers[row] for row in rows], [true[row] for row in rows], config.use_stemmer, unicode
    )
    return Scores(
        {
            f"{name}{UNICODE if unicode else ''}": spread(
                table[name].to_numpy(), rows, len(evidence.samples)
            )
            for name in config.metrics
        }
    )


def _counts_unicode(config: RougeConfig, other_scripts: Callable[[], bool]) -> bool:
    return config.words == "unicode" or (config.words == "auto" and other_scripts())


def refuse(dataset: pa.Table, asked: pa.Table, name: str, config: RougeConfig) -> None:
    """Check that each metric gives a perfect answer the full score.

    Raises:
        UsageError: a metric does not; names row and fix.
    """
    unicode = _counts_unicode(config, lambda: need_unicode_words(free_answers(dataset)))
    answers = list(dict.fromkeys(free_answers(asked)))
    table = rouge_scores(answers, answers, config.use_stemmer, unicode)

    def place(answer: str) -> str:
        row = dataset.filter(pc.equal(dataset["answer"], answer)).slice(0, 1).to_pylist()[0]
        index = row["source_index"]
        return f"data {name}" if index is None else f"data {name}: row {index + 1} of its source"

    if not unicode:
        seen = [_share_of_ascii(answer) for answer in answers]
        refuse_blind("rouge-score's words", seen, answers, place, TO_UNICODE, least=0.5)
    for metric in config.metrics:
        fix = TO_LEAVE_OUT if metric.startswith("rouge2") else TO_WRITE
        refuse_blind(metric, table[metric].to_numpy(), answers, place, fix)


TO_UNICODE = "set words of the probe to auto: these are runs of a-z and 0-9 and drop all others"
TO_LEAVE_OUT = (
    "it counts pairs of words: take it out of the probe's metrics or write longer answers"
)
TO_WRITE = "write an answer with a letter or digit, or delete the row"


def _share_of_ascii(answer: str) -> float:
    """Share of ASCII among an answer's letters and digits; 1 if it has none."""
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
        place: where an answer stands, e.g. 'data mine: row 3 of its source'.
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


PROBE = Probe(
    config=RougeConfig,
    version=1,
    source="Lin 2004; paper section 5, Eq. 2: KM = ROUGE(M(q), a)",
    track="text",
    run=run,
    metrics=tuple(Metric(name, 0, 1) for name in KNOWN),
    written=lambda config: config.metrics,
    knowledge="rougeL_recall",
    refuse=refuse,
)
