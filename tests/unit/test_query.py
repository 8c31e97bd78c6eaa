"""Tables as text: bytes come out as base64, and a printed table says how many there are."""

from __future__ import annotations

import base64
import csv
import io
import json

import pyarrow as pa
import pytest
from rich.console import Console

from distforget.query import export
from distforget.report.terminal import print_table

PIXELS = bytes(range(256))
TABLE = pa.table({"sample_id": [0, 1], "pixels": pa.array([PIXELS, None], pa.binary())})


@pytest.mark.parametrize("output", ["csv", "json"])
def test_bytes_are_written_in_base64(output: str) -> None:
    buffer = io.BytesIO()
    export(TABLE, output, "", buffer)
    text = buffer.getvalue().decode()
    if output == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert base64.b64decode(rows[0]["pixels"]) == PIXELS
    assert not rows[1]["pixels"]


def test_bytes_are_counted_where_they_are_printed() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_table(TABLE, console, 20)
    assert "256 bytes" in console.file.getvalue()  # type: ignore[attr-defined] # a StringIO


def test_lists_are_written_as_json_in_csv_and_stay_lists_elsewhere() -> None:
    table = pa.table({"choices": pa.array([["a, b", 'c "d"'], None, []], pa.list_(pa.string()))})
    text = {}
    for output in ("csv", "json"):
        buffer = io.BytesIO()
        export(table, output, "", buffer)
        text[output] = buffer.getvalue().decode()
    rows = list(csv.reader(io.StringIO(text["csv"])))
    assert [row and row[0] for row in rows] == ["choices", '["a, b", "c \\"d\\""]', [], "[]"]
    lines = [json.loads(line)["choices"] for line in text["json"].splitlines()]
    assert lines == [["a, b", 'c "d"'], None, []]
