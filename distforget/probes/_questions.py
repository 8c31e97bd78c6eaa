"""Reads multiple-choice questions in CommonsenseQA's format, from a file or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distforget.draws import rng
from distforget.errors import UsageError
from distforget.sources import _hub
from distforget.sources._pairs import text_of
from distforget.sources._rows import Row, dataset_rows, rows_of

FIELD = "probes.choices"
"""What messages call the part of a study that holds their settings."""

FORM = (
    '{"question": "...", "choices": {"label": ["A", "B"], "text": ["...", "..."]}, '
    '"answerKey": "A"}'
)


@dataclass(frozen=True)
class _Question:
    question: str
    choices: list[str]
    right: str


def read(path: str, split: str, revision: str, count: int, seed: int) -> pa.Table:
    """Some of the questions, drawn by the study's seed.

    Columns of the input: question, choices (a `label` and a `text` for each), answerKey (a label).

    Args:
        path: see :func:`is_file`.

    Returns:
        Columns question, answer (text of the right choice) and choices.

    Raises:
        UsageError: the file or a row is bad, or there are fewer questions than asked for; names
            file, line, column and fix.
    """
    where, rows = _source(path, split, revision)
    every = [_question(place, row) for place, row in rows]
    if len(every) < count:
        raise UsageError(
            f"{where}: it has {len(every)} questions, the study asks for {count}: lower "
            f"{FIELD}.questions"
        )
    drawn = sorted(rng(seed, "utility").permutation(len(every))[:count].tolist())
    chosen = [every[index] for index in drawn]
    return pa.table(
        {
            "question": pa.array([each.question for each in chosen], pa.string()),
            "answer": pa.array([each.right for each in chosen], pa.string()),
            "choices": pa.array([each.choices for each in chosen], pa.list_(pa.string())),
        }
    )


def is_file(path: str) -> bool:
    """Whether questions are read from a .jsonl file; others are datasets of the hub."""
    return path.endswith(".jsonl")


def _source(path: str, split: str, revision: str) -> tuple[str, Iterable[Row]]:
    if is_file(path):
        return path, rows_of(Path(path).expanduser(), f"{FIELD}.path")
    where = _hub.name(path, split, revision)
    data = _hub.load(path, "", split, revision, "path: a .jsonl file", FIELD)
    return where, dataset_rows(data, where)


def _question(place: str, row: Mapping[str, Any]) -> _Question:
    choices = row.get("choices")
    given = choices if isinstance(choices, Mapping) else {}
    labels, texts = given.get("label"), given.get("text")
    if not (isinstance(labels, list) and isinstance(texts, list)):
        raise UsageError(f"{place}, column 'choices': it has no lists label and text; write {FORM}")
    for number, label in enumerate(labels, 1):
        text_of({"label": label}, "label", f"{place}, choice {number}")
    for number, text in enumerate(texts, 1):
        text_of({"text": text}, "text", f"{place}, choice {number}")
    if not 2 <= len(texts) == len(labels) == len(set(labels)):
        raise UsageError(
            f"{place}, column 'choices': {len(labels)} labels and {len(texts)} texts; write two or "
            "more of each, no label twice"
        )
    if row.get("answerKey") not in labels:
        raise UsageError(
            f"{place}, column 'answerKey': it is {row.get('answerKey')!r}, which is not among the "
            f"labels {', '.join(labels)}"
        )
    question = text_of(row, "question", place)
    return _Question(question, texts, texts[labels.index(row["answerKey"])])
