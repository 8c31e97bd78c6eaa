"""Question-answer pairs from a file or the datasets hub; holds every row to what a study needs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz import fuzz, process

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks import hub
from distforget.tracks.rows import Text, to_table
from distforget.tracks.text.facts import states
from distforget.tracks.text.rouge import unicode_words

REQUIRED = ("question", "answer")
ROLES = ("target", "similar", "paraphrase", "neighbour", "other")
OF_A_TARGET = ("similar", "paraphrase", "neighbour")
"""Roles whose rows name their target."""

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands ('data.csv: line 3') and its values by column."""


@dataclass
class _Found:
    """Rows by role; those of a target by the id of their target."""

    targets: dict[str, Text] = field(default_factory=dict)
    families: dict[str, dict[str, list[Text]]] = field(
        default_factory=lambda: {role: {} for role in OF_A_TARGET}
    )
    places: dict[str, str] = field(default_factory=dict)
    """Where each target id is first named by a row of its family."""
    others: list[Text] = field(default_factory=list)


def read(config: DatasetConfig) -> pa.Table:
    """The first targets, their first similar samples, paraphrases and neighbours, and others.

    Columns of the input: question, answer; optional role (target, similar, paraphrase, neighbour,
    other) and target_id, which connects a row to its target; optional facts, what the question asks
    for: a list of texts, or one text with | between them, each found in the answer. Without role,
    the first `targets` rows are the targets and the rest are others. Neighbours that the file does
    not name are those of the others whose questions are most like the target's, each of them once.

    Raises:
        UsageError: the file or a row is bad, or there are fewer rows than the study asks for; names
            file, line, column and fix.
    """
    where, columns, rows = _source(config)
    for column in REQUIRED:
        if column not in columns:
            raise UsageError(
                f"{where}: column {column!r} is missing; it has: {', '.join(columns) or 'none'}; "
                f"rename or add it"
            )
    has_role = "role" in columns
    for role in ("similar", "paraphrase"):
        setting = f"{role}s_per_target" if role == "paraphrase" else "similar_per_target"
        if not has_role and getattr(config, setting):
            raise UsageError(
                f"{where}: column 'role' is missing, so no row is {role} to a target; add columns "
                f"'role' and 'target_id', or set dataset.{setting} to 0"
            )
        if has_role and getattr(config, setting) and "target_id" not in columns:
            raise UsageError(
                f"{where}: column 'target_id' is missing; add it to connect {role} rows to "
                f"targets, or set dataset.{setting} to 0"
            )
    return _select(_sort(rows, where, has_role, config.targets), config, where)


def place_of(answer: str, config: DatasetConfig) -> str:
    """Where the first row with this answer stands; the dataset's name where rows are made."""
    if config.source not in ("file", "hub"):
        return f"dataset {config.name}"
    where, _, rows = _source(config)
    return next((place for place, row in rows if row.get("answer") == answer), where)


def _source(config: DatasetConfig) -> tuple[str, list[str], Iterator[Row]]:
    """What messages call it, its columns and its rows."""
    if config.source == "hub":
        return hub.name(config), *_hub_rows(config)
    return config.path, *_file_rows(Path(config.path).expanduser())


def _sort(rows: Iterator[Row], where: str, has_role: bool, targets: int) -> _Found:
    found = _Found()
    number = 0
    for number, (place, row) in enumerate(rows, 1):
        question, answer = (text_of(row, column, place) for column in REQUIRED)
        pair = Text(question, answer, facts_of(row.get("facts"), answer, place))
        if not has_role:
            role, target_id = ("target", f"row {number}") if number <= targets else ("other", "")
        else:
            role = _role(row.get("role"), place)
            target_id = _target_id(row.get("target_id"), place)
            if role == "target":
                target_id = target_id or f"row {number}"
        if role == "other":
            found.others.append(pair)
        elif role == "target":
            if target_id in found.targets:
                raise UsageError(
                    f"{place}, column 'target_id': two targets have the id {target_id!r}; "
                    f"give each target its own"
                )
            found.targets[target_id] = pair
        else:
            if not target_id:
                raise UsageError(
                    f"{place}, column 'target_id': a {role} row needs the id of its target; add it"
                )
            found.families[role].setdefault(target_id, []).append(pair)
            found.places.setdefault(target_id, place)
    if number == 0:
        raise UsageError(f"{where}: it has no rows; write at least one question and answer to it")
    for target_id, place in found.places.items():
        if target_id not in found.targets:
            raise UsageError(
                f"{place}, column 'target_id': no target has the id {target_id!r}; add a row with "
                f"role 'target' and this id, or correct the id"
            )
    return found


def _select(found: _Found, config: DatasetConfig, where: str) -> pa.Table:
    names = list(found.targets)[: config.targets]
    neighbours, others = _neighbours(found, names, config.neighbours_per_target)
    families = {**found.families, "neighbour": neighbours}
    for what, have, asked in (
        ("targets", len(found.targets), config.targets),
        ("others", len(others), config.others),
    ):
        if have < asked:
            raise UsageError(
                f"{where}: it has {have} {what}, the study asks for {asked}: lower dataset.{what}"
            )
    chosen: list[tuple[str, int | None, int | None, Text]] = []
    chosen += [("target", i, None, found.targets[name]) for i, name in enumerate(names, 1)]
    for role, setting, called in (
        ("similar", "similar_per_target", "similar samples"),
        ("paraphrase", "paraphrases_per_target", "paraphrases"),
        ("neighbour", "neighbours_per_target", "neighbours"),
    ):
        size = getattr(config, setting)
        for i, name in enumerate(names, 1):
            rows = families[role].get(name, [])
            if len(rows) < size:
                raise UsageError(
                    f"{where}: target {name!r} has {len(rows)} {called}, the study asks for "
                    f"{size}: lower dataset.{setting}"
                )
            for rank, pair in enumerate(rows[:size], 1):
                chosen.append((role, i, rank if role == "similar" else None, pair))
    chosen += [("other", None, None, pair) for pair in others[: config.others]]
    return to_table(
        sample_id=range(len(chosen)),
        role=[role for role, _, _, _ in chosen],
        target_index=[target for _, target, _, _ in chosen],
        similar_rank=[rank for _, _, rank, _ in chosen],
        question=[text.question for _, _, _, text in chosen],
        answer=[text.answer for _, _, _, text in chosen],
        facts=[text.facts for _, _, _, text in chosen],
    )


def _neighbours(
    found: _Found, names: Sequence[str], size: int
) -> tuple[dict[str, list[Text]], list[Text]]:
    """Neighbours of each target, filled up from the others, and the others that are left."""
    neighbours, others = {}, list(found.others)
    for name in names:
        mine = found.families["neighbour"].get(name, [])
        missing = max(0, size - len(mine))
        near = process.extract(
            found.targets[name].question,
            [text.question for text in others],
            scorer=fuzz.token_sort_ratio,
            limit=missing,
        )
        taken = [place for _, _, place in near] if missing else []
        neighbours[name] = mine + [others[place] for place in taken]
        others = [pair for place, pair in enumerate(others) if place not in set(taken)]
    return neighbours, others


def text_of(row: Mapping[str, Any], column: str, place: str) -> str:
    """A column's text.

    Raises:
        UsageError: it is missing, empty, no text, or text that tables cannot hold.
    """
    value = row.get(column)
    if value is None:
        raise UsageError(f"{place}, column {column!r}: it is missing; fill it or delete the row")
    if not isinstance(value, str):
        raise UsageError(
            f"{place}, column {column!r}: it is {type(value).__name__} {str(value)[:40]!r}, not "
            f"text; write it as text"
        )
    if not value.strip():
        raise UsageError(f"{place}, column {column!r}: it is empty; fill it or delete the row")
    _refuse_unwritable(value, place, column)
    return value


def facts_of(value: object, answer: str, place: str) -> tuple[str, ...] | None:
    """A row's facts; None where it has none.

    Raises:
        UsageError: they are no texts, or one is not in the answer.
    """
    if value is None:
        return None
    given = value.split("|") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(fact, str) for fact in given):
        raise UsageError(
            f"{place}, column 'facts': it is {type(value).__name__} {str(value)[:40]!r}; write a "
            "list of texts, or one text with | between them"
        )
    for fact in given:
        _refuse_unwritable(fact, place, "facts")
        if not unicode_words(fact) or not states(answer, fact):
            raise UsageError(
                f"{place}, column 'facts': {fact!r} is not in the answer {answer[:60]!r}; write it "
                "as it stands there, or take it out"
            )
    return tuple(fact.strip() for fact in given) or None


def _refuse_unwritable(value: str, place: str, column: str) -> None:
    """Refuse NUL and halves of surrogate pairs, which JSON can escape and tables cannot hold."""
    bad = "\0" if "\0" in value else next((c for c in value if "\ud800" <= c <= "\udfff"), None)
    if bad is not None:
        what = "a NUL byte" if bad == "\0" else f"half a surrogate pair (\\u{ord(bad):04x})"
        raise UsageError(f"{place}, column {column!r}: it holds {what}; remove it")


def _role(value: object, place: str) -> str:
    if value not in ROLES:
        raise UsageError(
            f"{place}, column 'role': unknown role {value!r}; write one of {', '.join(ROLES)}"
        )
    return str(value)


def _target_id(value: object, place: str) -> str:
    """The id as text, '' if there is none; 3 and '3' are one id."""
    if value is None:
        return ""
    # pandas and spreadsheets turn a column of integers with gaps into floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, float) and value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(
            f"{place}, column 'target_id': it is {type(value).__name__} {str(value)[:40]!r}; write "
            f"a text or an integer"
        )
    text = str(value).strip()
    _refuse_unwritable(text, place, "target_id")
    return text


def _file_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    readers: dict[str, Callable[[Path], tuple[list[str], Iterator[Row]]]] = {
        ".jsonl": jsonl_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path}: unknown suffix {path.suffix!r}; dataset.path must end in {', '.join(readers)}"
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such file; correct dataset.path")
    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path}: the file is empty; write rows to it or correct dataset.path")
        return reader(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the file") from error


def _decoded(path: Path) -> str:
    """The file as text, without a byte order mark."""
    raw = path.read_bytes()
    nul = raw.find(b"\0")
    if nul >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        raise UsageError(f"{path}: line {line}: it holds a NUL byte; save the file as UTF-8 text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}: line {line}: it is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file "
            f"as UTF-8"
        ) from error


def jsonl_rows(
    path: Path, field: str = "dataset", form: str = '{"question": "...", "answer": "..."}'
) -> tuple[list[str], Iterator[Row]]:
    """Columns and rows of a JSON Lines file.

    Args:
        field: of the study, whose `path` it is.
        form: of a row, for messages.

    Raises:
        UsageError: it is not UTF-8, a line is no JSON object, or there is none.
    """
    rows: list[Row] = []
    for line, text in enumerate(_decoded(path).split("\n"), 1):
        if not text.strip():
            continue
        place = f"{path}: line {line}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = f" ({error.msg})" if isinstance(error, json.JSONDecodeError) else ""
            raise UsageError(
                f"{place}: not valid JSON{reason}; write one object a line, e.g. {form}"
            ) from error
        if not isinstance(row, dict):
            raise UsageError(f"{place}: it is {type(row).__name__}, not an object; write {form}")
        rows.append((place, row))
    if not rows:
        raise UsageError(f"{path}: the file is empty; write rows to it or correct {field}.path")
    # A row that lacks a key is reported with its line; a column is missing if no row has it.
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    return columns, iter(rows)


def _csv_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    records = _csv_records(reader, path)
    _, columns = next(records, (0, []))
    doubled = sorted({c for c in columns if columns.count(c) > 1})
    if doubled:
        raise UsageError(f"{path}: line 1: two columns are named {doubled[0]!r}; rename one")

    def rows() -> Iterator[Row]:
        for line, values in records:
            if len(values) != len(columns):
                raise UsageError(
                    f"{path}: line {line}: it has {len(values)} columns, the first line has "
                    f"{len(columns)}; put values with commas in double quotes"
                )
            yield (
                f"{path}: line {line}",
                {
                    c: v if v or c in REQUIRED else None
                    for c, v in zip(columns, values, strict=True)
                },
            )

    return columns, rows()


def _csv_records(reader: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line on which a record starts, and its values; blank lines are passed over."""
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


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path}: not a readable Parquet file ({' '.join(str(error).split())}); write it again"
        ) from error
    columns = list(table.column_names)
    used = [c for c in (*REQUIRED, "role", "target_id", "facts") if c in columns]
    if len(used) < sum(columns.count(c) for c in used):
        doubled = next(c for c in used if columns.count(c) > 1)
        raise UsageError(f"{path}: two columns are named {doubled!r}; rename one")
    return columns, _arrow_rows(table.select(used), str(path))


def _arrow_rows(table: pa.Table, where: str) -> Iterator[Row]:
    number = 0
    for batch in table.to_batches(max_chunksize=10_000):
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{where}: {_undecodable(batch, number)}: it is not UTF-8; write it as UTF-8"
            ) from error
        for row in rows:
            number += 1
            yield f"{where}: row {number}", row


def _undecodable(batch: pa.RecordBatch, rows_before: int) -> str:
    for column in batch.schema.names:
        for index, value in enumerate(batch[column], 1):
            try:
                value.as_py()
            except UnicodeDecodeError:
                return f"row {rows_before + index}, column {column!r}"
    raise AssertionError("every value can be decoded")


def _hub_rows(config: DatasetConfig) -> tuple[list[str], Iterator[Row]]:
    data = hub.load(config, "source: file")
    where = hub.name(config)
    rows = ((f"{where}: row {number}", row) for number, row in enumerate(data, 1))
    return list(data.column_names), rows
