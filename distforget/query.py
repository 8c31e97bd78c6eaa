"""Filters a table, selects columns, and writes it in a common format."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from distforget.errors import UsageError


def select(table: pa.Table, where: str, columns: str) -> pa.Table:
    """Rows that match a pandas filter, and some columns.

    Raises:
        UsageError: the filter or a column is wrong; names the columns there are.
    """
    known = ", ".join(table.column_names)
    if where:
        frame = table.to_pandas()
        try:
            kept = frame.eval(where)
            index = frame.index[kept.fillna(False).astype(bool)]
        except Exception as error:  # pandas raises many kinds for a bad filter
            raise UsageError(f"--where {where!r}: {error}; columns: {known}") from error
        table = table.take(pa.array(index))
    if columns:
        wanted = [name.strip() for name in columns.split(",")]
        unknown = [name for name in wanted if name not in table.column_names]
        if unknown:
            raise UsageError(f"--columns: no column {unknown[0]!r}; columns: {known}")
        table = table.select(wanted)
    return table


def export(table: pa.Table, output: str, to: str, standard_output: BinaryIO) -> None:
    """Write a table as csv, json (one object per line) or parquet, to a file or standard output.

    Bytes, such as pixels, are written in base64 where the format is text.

    Raises:
        UsageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    if output == "csv":
        write_csv(table, buffer)
    elif output == "json":
        in_text(table).to_pandas().to_json(buffer, orient="records", lines=True)
    else:
        pyarrow.parquet.write_table(table, buffer)
    if not to:
        standard_output.write(buffer.getvalue())
        return
    temporary = Path(f"{to}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(to)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"--to {to}: cannot write: {error.strerror}") from error


def write_csv(table: pa.Table, to: Path | BinaryIO) -> None:
    """Write a table as CSV, bytes in base64 and lists as JSON."""
    table = in_text(table)
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            values = table[field.name].to_pylist()
            texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    pyarrow.csv.write_csv(table, to)


def in_text(table: pa.Table) -> pa.Table:
    """The table with bytes, such as pixels, in base64."""
    for place, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            texts = [v and base64.b64encode(v).decode() for v in table[field.name].to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    return table
