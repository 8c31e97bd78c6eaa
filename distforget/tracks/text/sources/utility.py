"""Multiple-choice questions in CommonsenseQA's form, from a file or the datasets hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distforget.dataset_config import UtilityConfig
from distforget.study import UsageError, rng
from distforget.tracks import hub
from distforget.tracks.rows import to_table
from distforget.tracks.text.sources.files import Row, jsonl_rows, text_of

FORM = (
    '{"question": "...", "choices": {"label": ["A", "B"], "text": ["...", "..."]}, '
    '"answerKey": "A"}'
)


@dataclass(frozen=True)
class _Question:
    question: str
    choices: list[str]
    right: str


def read(config: UtilityConfig, seed: int, first_id: int) -> pa.Table:
    """Some of the questions, drawn by the study's seed, as rows with role `utility`.

    Columns of the input: question, choices (a `label` and a `text` for each), answerKey (a label).

    Args:
        first_id: sample_id of the first row.

    Raises:
        UsageError: the file or a row is bad, or there are fewer questions than asked for; names
            file, line, column and fix.
    """
    where, rows = _source(config)
    every = [_question(place, row) for place, row in rows]
    if len(every) < config.questions:
        raise UsageError(
            f"{where}: it has {len(every)} questions, the study asks for {config.questions}: lower "
            "dataset.utility.questions"
        )
    drawn = sorted(rng(seed, "utility").permutation(len(every))[: config.questions].tolist())
    chosen = [every[index] for index in drawn]
    return to_table(
        sample_id=range(first_id, first_id + len(chosen)),
        role=["utility"] * len(chosen),
        question=[each.question for each in chosen],
        answer=[each.right for each in chosen],
        choices=[each.choices for each in chosen],
    )


def _source(config: UtilityConfig) -> tuple[str, Iterable[Row]]:
    if config.source == "file":
        _, rows = jsonl_rows(Path(config.path).expanduser(), config.field, FORM)
        return config.path, rows
    data = hub.load(config, "source: file")
    where = hub.name(config)
    return where, ((f"{where}: row {number}", row) for number, row in enumerate(data, 1))


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
