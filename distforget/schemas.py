"""Reads data_schemas/ and checks tables against it when they are written and read."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field, ValidationError, field_validator

from distforget import disk
from distforget.errors import UsageError
from distforget.frozen import NAME_PATTERN, Frozen

TYPES = {
    "string": pa.string(),
    "uint16": pa.uint16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
}
LIST_PATTERN = re.compile(r"list<(\w+)>")


class SchemaError(UsageError):
    """A table is not as data_schemas/ says: the message names file, column and fix."""


class Column(Frozen):
    """One column of a table; its type is a key of TYPES or a list of one, e.g. 'list<int32>'."""

    type: str
    meaning: str = Field(min_length=1)
    unit: str | None = None
    nullable: bool = False

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, value: str) -> str:
        listed = LIST_PATTERN.fullmatch(value)
        if (listed[1] if listed else value) not in TYPES:
            raise ValueError(f"unknown type {value!r}; known: {', '.join(TYPES)} and list<...>")
        return value

    @property
    def arrow_type(self) -> pa.DataType:
        """The type in Arrow's terms."""
        listed = LIST_PATTERN.fullmatch(self.type)
        return pa.list_(TYPES[listed[1]]) if listed else TYPES[self.type]


class TableSchema(Frozen):
    """One table: what a file of data_schemas/ says."""

    table: str = Field(pattern=NAME_PATTERN)
    meaning: str = Field(min_length=1)
    version: int = Field(ge=1)
    columns: dict[str, Column] = Field(min_length=1)


class _NoDuplicates(yaml.SafeLoader):
    """YAML loader that refuses a key that is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is written twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def folder() -> Traversable:
    """Where the schema files lie: inside an installed package, or beside it in a checkout."""
    shipped = resources.files("distforget").joinpath("data_schemas")
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "data_schemas"


def tables() -> tuple[str, ...]:
    """The names of all tables.

    Raises:
        SchemaError: the schema files are missing from the installation.
    """
    place = folder()
    files = [file.name for file in place.iterdir()] if place.is_dir() else []
    names = sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
    if not names:
        raise SchemaError(f"{place}: no schema files (*.yaml) there; install distforget again")
    return tuple(names)


@cache
def describe(table: str) -> TableSchema:
    """The schema of a table.

    Raises:
        SchemaError: there is no such table, or its file is not a schema.
    """
    known = tables()
    if table not in known:
        raise SchemaError(f"no table {table!r}; tables: {', '.join(known)}")
    file = folder().joinpath(f"{table}.yaml")
    found = parse(file.read_text(encoding="utf-8"), str(file))
    if found.table != table:
        raise SchemaError(f"{file}: table: is {found.table!r}, the file's name says {table!r}")
    return found


def parse(text: str, where: str) -> TableSchema:
    """The schema that a file of data_schemas/ holds.

    Args:
        where: file the text comes from, for the message.

    Raises:
        SchemaError: it is not YAML, or a field is missing, unknown, doubled or wrong.
    """
    try:
        content = yaml.load(text, _NoDuplicates)
        return TableSchema.model_validate(content)
    except yaml.YAMLError as error:
        raise SchemaError(f"{where}: not a table schema: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors()
        )
        raise SchemaError(f"{where}: not a table schema: {wrong}") from error


@cache
def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table, meaning and unit in the fields' metadata.

    Raises:
        SchemaError: there is no such table.
    """
    described = describe(table)
    fields = [
        pa.field(
            name,
            column.arrow_type,
            column.nullable,
            {"meaning": column.meaning, **({"unit": column.unit} if column.unit else {})},
        )
        for name, column in described.columns.items()
    ]
    return pa.schema(fields, {"table": table, "version": str(described.version)})


def check(table: pa.Table, name: str, where: str) -> pa.Table:
    """The table with exactly the columns of its schema, in their order.

    Columns that hold the same values in another type are cast: large or dictionary-encoded text,
    integers of another width or where floats are wanted (if each value fits), all-null columns.

    Args:
        where: file or place the table comes from, for the message.

    Raises:
        SchemaError: a column is missing, unknown, doubled, of another type, or null where it must
            not be; or the table was written under another version of its schema.
    """
    return _check(table, name, where, f"make it fit data_schemas/{name}.yaml")


def _check(table: pa.Table, name: str, where: str, fix: str) -> pa.Table:
    schema = arrow_schema(name)
    wrong = _wrong_columns(table, schema) or _wrong_version(table, schema)
    if wrong:
        raise SchemaError(f"{where}: table {name!r}: {wrong}; {fix}")
    columns = []
    for field in schema:
        found = table[field.name]
        column = _cast(found, field.type)
        if column is None:
            raise SchemaError(
                f"{where}: table {name!r}: column {field.name!r} is {found.type}, expected "
                f"{field.type}{' (some values do not fit)' if _castable(found, field.type) else ''}"
                f"; {fix}"
            )
        if column.null_count and not field.nullable:
            raise SchemaError(
                f"{where}: table {name!r}: column {field.name!r} has {column.null_count} nulls in "
                f"{len(column)} rows, expected none (it is not nullable); {fix}"
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _wrong_columns(table: pa.Table, schema: pa.Schema) -> str:
    found = table.column_names
    doubled = [c for c in found if found.count(c) > 1]
    missing = [c for c in schema.names if c not in found]
    unknown = [c for c in found if c not in schema.names]
    for columns, what in ((doubled, "doubled"), (missing, "missing"), (unknown, "unknown")):
        if columns:
            return (
                f"column {columns[0]!r} is {what}; found: {', '.join(found) or 'no columns'}; "
                f"expected: {', '.join(schema.names)}"
            )
    return ""


def _wrong_version(table: pa.Table, schema: pa.Schema) -> str:
    found, expected = table.schema.metadata or {}, schema.metadata
    if found.get(b"table") != expected[b"table"] or b"version" not in found:
        return ""
    if found[b"version"] == expected[b"version"]:
        return ""
    return (
        f"it was written under version {found[b'version'].decode(errors='replace')} of its schema, "
        f"expected version {expected[b'version'].decode()}"
    )


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | None:
    """Casts a column to the wanted type; None if that would change a value."""
    if column.type == wanted:
        return column
    if not _castable(column, wanted):
        return None
    try:
        return column.cast(wanted, safe=True)
    except pa.ArrowInvalid:
        return None


def _castable(column: pa.ChunkedArray, wanted: pa.DataType) -> bool:
    """Whether the types may hold the same values; each value is checked by the cast."""
    found = column.type
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_integer(found):
        number = pa.types.is_integer(wanted) or pa.types.is_floating(wanted)
        return bool(number and found == column.type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return bool(wanted == pa.string() and any(is_text(found) for is_text in text))


def from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table out of rows; nullable columns that a row lacks become null.

    Raises:
        SchemaError: a row has an unknown column, or lacks a value, or has one that does not fit.
    """
    schema = arrow_schema(name)
    known = set(schema.names)
    for index, row in enumerate(rows):
        for column in row.keys() - known:
            raise SchemaError(
                f"row {index} of table {name!r}: unknown column {column!r}; expected: "
                f"{', '.join(schema.names)}"
            )
    columns = [_column(name, field, [row.get(field.name) for row in rows]) for field in schema]
    return check(pa.table(columns, schema.names), name, "new rows")


def _column(name: str, field: pa.Field, values: list[Any]) -> pa.Array:
    absent = next((index for index, value in enumerate(values) if value is None), None)
    if absent is not None and not field.nullable:
        raise SchemaError(
            f"row {absent} of table {name!r}: column {field.name!r} has no value, and it is not "
            "nullable"
        )
    # Given an integer type, Arrow would cut 1.5 to 1 without a word: let it infer, then check.
    infer = pa.types.is_integer(field.type) or pa.types.is_string(field.type)
    try:
        if pa.types.is_floating(field.type) and any(isinstance(value, bool) for value in values):
            raise TypeError("a value is a bool")
        return pa.array(values, None if infer else field.type)
    except (ValueError, TypeError, OverflowError) as error:
        raise SchemaError(
            f"new rows of table {name!r}: column {field.name!r}, expected {field.type}: {error}"
        ) from error


def empty(name: str) -> pa.Table:
    """A table without rows.

    Raises:
        SchemaError: there is no such table.
    """
    return arrow_schema(name).empty_table()


def write(table: pa.Table, name: str, path: Path) -> None:
    """Check a table and write it as Parquet: a temporary file, fsync, rename.

    Raises:
        SchemaError: the table does not fit its schema.
        OSError: the file cannot be written; nothing is left of it.
    """
    checked = check(table, name, str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(checked, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    disk.sync_folder(path.parent)


def read(path: Path, name: str) -> pa.Table:
    """Read a Parquet file and check it; damaged pages are found by their checksums.

    Raises:
        SchemaError: the file is missing, corrupt, or does not fit the schema.
    """
    result = _result_of(path)
    fix = f"delete {result} and run the study again"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except FileNotFoundError as error:
        missing = f"{path}: table {name!r} is missing"
        raise SchemaError(f"{missing}; {fix if result != path else 'run the study'}") from error
    except (ValueError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise SchemaError(f"{path}: cannot be read: {error.strerror or error}") from error
        raise SchemaError(f"{path}: not a readable Parquet file ({error}); {fix}") from error
    return _check(table, name, str(path), f"{fix}, or use the version of distforget that wrote it")


def _result_of(path: Path) -> Path:
    """The folder with a manifest that the file is a part of: it must go as a whole."""
    return next((p for p in path.parents if (p / "manifest.json").is_file()), path)
