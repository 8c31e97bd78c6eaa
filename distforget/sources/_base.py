"""Base samples of text as Arrow tables: the output of sources, the input of similarities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

BASE = pa.schema(
    [
        ("role", pa.string()),
        ("target_index", pa.int32()),
        ("similar_rank", pa.int32()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("facts", pa.list_(pa.string())),
        ("wrong_answers", pa.list_(pa.string())),
        ("source_index", pa.int64()),
        ("place", pa.string()),
        ("told", pa.map_(pa.string(), pa.string())),
    ]
)
"""Columns as in table `samples`, and two more. `place` is where messages say the row stands, e.g.
'data.csv: line 3'. `told` holds what a source that makes its texts made this one of."""


@dataclass(frozen=True)
class Text:
    """One row of :data:`BASE`."""

    role: str
    question: str
    answer: str
    facts: tuple[str, ...] | None = None
    """What the question asks for, each stated by the answer; None: the dataset does not say."""
    wrong_answers: tuple[str, ...] | None = None
    """Answers of the same form that state something else; None: the dataset has none."""
    target_index: int | None = None
    similar_rank: int | None = None
    source_index: int | None = None
    place: str | None = None
    told: Mapping[str, str] | None = None


def base_table(texts: Sequence[Text]) -> pa.Table:
    """These rows as a table of :data:`BASE`."""
    columns = {name: [getattr(text, name) for text in texts] for name in BASE.names}
    columns["told"] = [told and list(told.items()) for told in columns["told"]]
    return pa.table(columns, schema=BASE)
