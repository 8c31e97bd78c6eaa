"""Builds rows of table `samples` from columns or from base samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from distforget import schemas


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
        _column(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(values: Sequence[Any] | pa.ChunkedArray, wanted: pa.DataType) -> Any:
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, wanted)


def from_base(rows: pa.Table, first_id: int) -> pa.Table:
    """Base rows as rows of :func:`row_schema`, numbered from `first_id`; what they lack is null."""
    return to_table(
        sample_id=range(first_id, first_id + len(rows)),
        **{name: rows[name] for name in row_schema().names if name in rows.column_names},
    )
