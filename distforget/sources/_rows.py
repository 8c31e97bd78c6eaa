"""Streams the rows of tables in common formats: JSON Lines, JSON, CSV, Parquet, Arrow.

Files may be compressed (.gz, .zst). A folder holds shards of one format, read in the order of their
names, or is one that `datasets` wrote with `save_to_disk`. Only a JSON array is held in memory as a
whole; all else is read in a stream.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distforget.errors import UsageError

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands ('data.csv: line 3') and its values by column."""

ROWS_AT_ONCE = 10_000
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


def rows_of(path: Path, field: str, split: str = "") -> Iterator[Row]:
    """The rows of a file or folder.

    Args:
        field: of the study, which names the path.
        split: of a folder that holds several, as `datasets` writes a DatasetDict.

    Raises:
        UsageError: something cannot be read; names file, line or row, and fix.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; correct {field}")
    if path.is_dir():
        return _folder_rows(path, field, split)
    return _file_rows(path, field)


def _folder_rows(path: Path, field: str, split: str) -> Iterator[Row]:
    shards = shards_of(path, field)
    if not shards:
        yield from _saved_rows(path, field, split)
    for shard in shards:
        yield from _file_rows(shard, field)


def shards_of(path: Path, field: str) -> list[Path]:
    """The files of a folder, by name; none if `save_to_disk` wrote it.

    Raises:
        UsageError: it has no data, or data in two formats.
    """
    if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return []
    shards = sorted(p for p in path.iterdir() if p.is_file() and _format(p) in READERS)
    if not shards:
        raise UsageError(f"{path}: no file in it ends in {KNOWN}; correct {field}")
    formats = {_format(shard): shard for shard in shards}
    if len(formats) > 1:
        one, other, *_ = formats.values()
        raise UsageError(
            f"{path}: {one.name} and {other.name} are of two formats; keep the shards of one "
            "format in a folder of their own"
        )
    return shards


def _saved_rows(path: Path, field: str, split: str) -> Iterator[Row]:
    import datasets

    with _explained(path, "not a readable folder of save_to_disk"):
        saved = datasets.load_from_disk(str(path))
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise UsageError(
                f"{path}: it has the splits {', '.join(saved)}; name one of them in "
                f"{field.replace('.path', '.split')}"
            )
        saved = saved[split]
    yield from dataset_rows(saved, str(path))


def dataset_rows(data: Any, where: str) -> Iterator[Row]:
    """The rows of a `datasets.Dataset`."""
    return _arrow_rows(data.with_format("arrow").iter(ROWS_AT_ONCE), where)


def _format(path: Path) -> str:
    """The suffix that says how a file is written, without that of its compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _file_rows(path: Path, field: str) -> Iterator[Row]:
    reader = READERS.get(_format(path))
    if reader is None:
        raise UsageError(f"{path}: {field} must end in {KNOWN}, with or without .gz or .zst")
    if path.stat().st_size == 0:
        raise UsageError(f"{path}: the file is empty; write rows to it or correct {field}")
    with _explained(path, "it cannot be read"), _opened(path) as file:
        yield from reader(file, path)


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: {what} ({said}); write it again") from error


def _opened(path: Path) -> pa.NativeFile:
    """The file's content, decompressed."""
    return pa.input_stream(str(path), compression=COMPRESSED.get(path.suffix.lower()))


def _lines(file: pa.NativeFile, path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, as text without a byte order mark.

    Raises:
        UsageError: a line is not UTF-8, or holds a NUL byte.
    """
    for number, raw in enumerate(io.BufferedReader(file, 1 << 20), 1):
        if b"\0" in raw:
            raise UsageError(
                f"{path}: line {number}: it holds a NUL byte; save the file as UTF-8 text"
            )
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{path}: line {number}: it is not UTF-8 (byte 0x{raw[error.start]:02x}); save the "
                "file as UTF-8"
            ) from error


def _json_lines(file: pa.NativeFile, path: Path) -> Iterator[Row]:
    for number, text in _lines(file, path):
        if text.strip():
            place = f"{path}: line {number}"
            yield place, _object(_parsed(text, place), place)


def _json_array(file: pa.NativeFile, path: Path) -> Iterator[Row]:
    text = "".join(line for _, line in _lines(file, path))
    found = _parsed(text, str(path)) if text.strip() else []
    if not isinstance(found, list):
        raise UsageError(
            f"{path}: it is {type(found).__name__}, not an array of objects; write [{{...}}, ...], "
            "or one object a line into a .jsonl file"
        )
    for number, row in enumerate(found, 1):
        yield f"{path}: row {number}", _object(row, f"{path}: row {number}")


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{place}: not valid JSON{reason}; correct it") from error


def _object(row: object, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UsageError(
            f"{place}: it is {type(row).__name__}, not an object; write e.g. "
            '{"question": "...", "answer": "..."}'
        )
    return row


def _csv(file: pa.NativeFile, path: Path) -> Iterator[Row]:
    lines = _lines(file, path)
    first = next(lines)
    # The delimiter is what parts the first line into most columns.
    delimiter = max(",;\t", key=lambda sign: len(next(csv.reader([first[1]], delimiter=sign), [])))
    texts = (text for _, text in (pair for part in ([first], lines) for pair in part))
    records = _records(csv.reader(texts, delimiter=delimiter, strict=True), path)
    _, columns = next(records, (0, []))
    doubled = sorted({c for c in columns if columns.count(c) > 1})
    if doubled:
        raise UsageError(f"{path}: line 1: two columns are named {doubled[0]!r}; rename one")
    for line, values in records:
        if len(values) != len(columns):
            raise UsageError(
                f"{path}: line {line}: it has {len(values)} columns, the first line has "
                f"{len(columns)}; put values with a {delimiter!r} in double quotes"
            )
        yield f"{path}: line {line}", dict(zip(columns, values, strict=True))


def _records(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line on which a record starts, and its values; blank lines are passed over."""
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(
                f"{path}: line {line}: not valid CSV ({error}); check its double quotes"
            ) from error
        if values:
            yield line, values


def _parquet(file: pa.NativeFile, path: Path) -> Iterator[Row]:
    # Parquet is read from its end: a compressed file has to be in memory.
    whole = pa.BufferReader(file.read()) if path.suffix.lower() in COMPRESSED else str(path)
    with pq.ParquetFile(whole) as table:
        _refuse_doubled(table.schema_arrow.names, path)
        yield from _arrow_rows(table.iter_batches(ROWS_AT_ONCE), str(path))


def _arrow(file: pa.NativeFile, path: Path) -> Iterator[Row]:
    data = pa.BufferReader(file.read())
    try:
        reader = pa.ipc.open_file(data)
        batches: Iterable[pa.RecordBatch] = map(reader.get_batch, range(reader.num_record_batches))
    except pa.ArrowInvalid:
        data.seek(0)
        reader = batches = pa.ipc.open_stream(data)
    _refuse_doubled(reader.schema.names, path)
    yield from _arrow_rows(batches, str(path))


def _refuse_doubled(columns: list[str], path: Path) -> None:
    doubled = next((c for c in columns if columns.count(c) > 1), None)
    if doubled:
        raise UsageError(f"{path}: two columns are named {doubled!r}; rename one")


def _arrow_rows(batches: Iterable[pa.RecordBatch | pa.Table], where: str) -> Iterator[Row]:
    number = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{where}: {_undecodable(batch, number)}: it is not UTF-8; write it as UTF-8"
            ) from error
        for row in rows:
            number += 1
            yield f"{where}: row {number}", row


def _undecodable(batch: pa.RecordBatch | pa.Table, rows_before: int) -> str:
    for column in batch.schema.names:
        for index, value in enumerate(batch[column], 1):
            try:
                value.as_py()
            except UnicodeDecodeError:
                return f"row {rows_before + index}, column {column!r}"
    raise AssertionError("every value can be decoded")


READERS: Mapping[str, Callable[[pa.NativeFile, Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_array,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
KNOWN = ", ".join(READERS)
