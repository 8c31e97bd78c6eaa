"""The columns that every source of the text track returns; knows nothing of where rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from distforget import schemas


def row_schema() -> pa.Schema:
    """The Arrow schema of table `samples` without the dataset's name."""
    return pa.schema([f for f in schemas.arrow_schema("samples") if f.name != "dataset"])


def to_table(**columns: Sequence[Any]) -> pa.Table:
    """A table of :func:`row_schema` out of columns given by name."""
    schema = row_schema()
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
