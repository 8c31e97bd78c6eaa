"""The columns that every source of every track returns; knows nothing of where rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from distforget import schemas


class Text(NamedTuple):
    """What a row of text says."""

    question: str
    answer: str
    facts: tuple[str, ...] | None
    """What the question asks for, each stated by the answer; None: the dataset does not say."""


def row_schema() -> pa.Schema:
    """The Arrow schema of table `samples` without the dataset's name."""
    return pa.schema([f for f in schemas.arrow_schema("samples") if f.name != "dataset"])


def to_table(**columns: Sequence[Any]) -> pa.Table:
    """A table of :func:`row_schema` out of columns given by name; nullable ones may be left out.

    Raises:
        TypeError: a column is unknown, or one that is not nullable is missing.
    """
    schema = row_schema()
    needed = {f.name for f in schema if not f.nullable}
    wrong = (columns.keys() - set(schema.names)) | (needed - columns.keys())
    if wrong:
        raise TypeError(f"unknown or missing columns of samples: {', '.join(sorted(wrong))}")
    rows = len(columns["sample_id"])
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
