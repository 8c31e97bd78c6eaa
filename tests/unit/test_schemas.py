"""Tables against data_schemas/: what fits is kept, what has drifted is named."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget import schemas
from distforget.errors import UsageError
from distforget.schemas import SchemaError

SCORE: dict[str, Any] = {
    "attack": "none",
    "track": "text",
    "dataset": "biographies",
    "model": "smollm2",
    "phase": "post_unlearn",
    "dose": 50,
    "seed": 0,
    "method": "GA",
    "variant": "plain",
    "unlearned": 1,
    "sample_id": 3,
    "role": "similar",
    "target_index": 1,
    "metric": "rougeL_recall",
    "value": 0.25,
}


def scores(**columns: pa.Array) -> pa.Table:
    """Two rows of scores as plain Arrow arrays, with some columns replaced."""
    schema = schemas.arrow_schema("scores")
    arrays = {f.name: pa.array([SCORE[f.name]] * 2, f.type) for f in schema}
    return pa.table({**arrays, **columns})


def complaint(table: pa.Table) -> str:
    with pytest.raises(SchemaError) as caught:
        schemas.check(table, "scores", "somewhere.parquet")
    message = str(caught.value)
    assert "somewhere.parquet" in message
    assert "data_schemas/scores.yaml" in message
    return message


def test_every_file_of_data_schemas_is_a_table() -> None:
    files = {path.stem: path for path in Path("data_schemas").absolute().glob("*.yaml")}
    assert schemas.tables() == tuple(sorted(files))
    for name, path in files.items():
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        described = schemas.describe(name)
        assert list(described.columns) == list(written["columns"])
        assert described.version == written["version"]
        assert schemas.empty(name).schema.names == list(written["columns"])


def test_arrow_schema_carries_types_units_meanings_and_version() -> None:
    schema = schemas.arrow_schema("training")
    loss = schema.field("loss")
    assert (loss.type, loss.nullable) == (pa.float64(), True)
    assert loss.metadata[b"unit"] == b"nats per answer token"
    assert loss.metadata[b"meaning"].startswith(b"mean training loss")
    assert not schema.field("step").nullable
    assert schema.metadata == {b"table": b"training", b"version": b"4"}


def test_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(SchemaError, match=r"no table 'score'; tables: answers, .*scores"):
        schemas.describe("score")


def test_error_is_a_usage_error_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(SchemaError("file, column, fix")))
    assert isinstance(error, UsageError)
    assert str(error) == "file, column, fix"


GOOD = """
table: t
meaning: m
version: 1
columns:
  a: {type: "list<int32>", meaning: m}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("list<int32>", "int33", "columns.a.type: .*unknown type 'int33'; known: string"),
        ("list<int32>", "list<list>", "unknown type 'list<list>'"),
        ("version: 1", "version: 0", "version: "),
        ("meaning: m\n", "", "meaning: Field required"),
        (", meaning: m}", "}", "columns.a.meaning: Field required"),
        (", meaning: m}", ", meaning: m, units: s}", "columns.a.units: Extra inputs"),
        ("columns:\n", "columns:\n  a: {type: bool, meaning: m}\n", "'a' is written twice"),
        ("columns:\n", "columns: [\n", "while parsing a flow sequence"),
        (GOOD, "", "content: "),
        (GOOD[GOOD.index("  a:") :], "", "columns: "),
    ],
)
def test_a_bad_schema_file_is_named_with_its_field(old: str, new: str, said: str) -> None:
    assert schemas.parse(GOOD, "t.yaml").columns["a"].arrow_type == pa.list_(pa.int32())
    with pytest.raises(SchemaError, match=rf"(?s)^t\.yaml: not a table schema: .*{said}"):
        schemas.parse(GOOD.replace(old, new), "t.yaml")


def test_missing_column() -> None:
    message = complaint(scores().drop_columns(["role"]))
    assert "column 'role' is missing; found: track, dataset" in message


def test_unknown_column() -> None:
    message = complaint(scores(roles=pa.array(["a", "b"])))
    assert "column 'roles' is unknown" in message
    assert "expected: track, dataset" in message


def test_doubled_column() -> None:
    table = scores()
    assert "column 'role' is doubled" in complaint(table.append_column("role", table["role"]))


def test_null_where_there_must_be_none() -> None:
    message = complaint(scores(role=pa.array(["target", None])))
    assert "column 'role' has 1 nulls in 2 rows, expected none" in message


@pytest.mark.parametrize(
    ("column", "array", "said"),
    [
        ("role", pa.array([1, 2]), "is int64, expected string"),
        ("role", pa.array([b"a", b"b"]), "is binary, expected string"),
        ("seed", pa.array(["0", "1"]), "is string, expected int32"),
        ("seed", pa.array([0.0, 1.0]), "is double, expected int32"),
        ("seed", pa.array([0, 2**31]), r"is int64, expected int32 \(some values do not fit\)"),
        ("value", pa.array([0, 2**53 + 1]), r"is int64, expected double \(some values"),
        ("value", pa.array([0.5, 1.0], pa.float32()), "is float, expected double"),
        ("value", pa.array([True, False]), "is bool, expected double"),
        ("seed", pa.array([1, 2]).dictionary_encode(), "is dictionary.*, expected int32"),
    ],
)
def test_wrong_type(column: str, array: pa.Array, said: str) -> None:
    with pytest.raises(SchemaError, match=f"column {column!r} {said}"):
        schemas.check(scores(**{column: array}), "scores", "new rows")


@pytest.mark.parametrize(
    ("column", "array"),
    [
        ("role", pa.array(["target", "other"], pa.large_string())),
        ("role", pa.array(["target", "other"]).dictionary_encode()),
        ("seed", pa.array([1, 2], pa.int64())),
        ("sample_id", pa.array([1, 2], pa.uint8())),
        ("value", pa.array([1, 2**53])),
        ("method", pa.nulls(2)),
    ],
)
def test_the_same_values_in_another_type_are_cast(column: str, array: pa.Array) -> None:
    checked = schemas.check(scores(**{column: array}), "scores", "new rows")
    assert checked.schema.equals(schemas.arrow_schema("scores"), check_metadata=True)
    assert checked[column].to_pylist() == array.to_pylist()


def test_columns_come_back_in_the_order_of_the_schema() -> None:
    table = scores()
    shuffled = table.select(sorted(table.column_names))
    assert schemas.check(shuffled, "scores", "x").equals(schemas.check(table, "scores", "x"))


def test_another_version_of_the_schema_is_drift() -> None:
    table = scores().replace_schema_metadata({"table": "scores", "version": "7"})
    assert "written under version 7 of its schema, expected version 2" in complaint(table)


TEXTS = ("track", "dataset", "model", "phase", "role", "attack")

rows = st.fixed_dictionaries(
    {
        **{name: st.text(max_size=8) for name in TEXTS},
        "sample_id": st.integers(-(2**63), 2**63 - 1),
        "metric": st.text(),
        "value": st.floats(allow_nan=False),
    },
    optional={
        **{n: st.none() | st.integers(-(2**31), 2**31 - 1) for n in ("dose", "seed", "unlearned")},
        **{n: st.none() | st.text(max_size=8) for n in ("method", "variant")},
        "target_index": st.none() | st.integers(0, 2**31 - 1),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.lists(rows, max_size=5))
def test_rows_come_back_from_a_file_as_they_went_in(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scores.parquet")
        schemas.write(schemas.from_rows("scores", rows), "scores", path)
        found = schemas.read(path, "scores")
        assert os.listdir(folder) == ["scores.parquet"]
    nothing = dict.fromkeys(schemas.arrow_schema("scores").names)
    assert found.to_pylist() == [{**nothing, **row} for row in rows]
    assert found.schema.equals(schemas.arrow_schema("scores"), check_metadata=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rolle": "target"}, "row 1 of table 'scores': unknown column 'rolle'"),
        ({"role": None}, "row 1 of table 'scores': column 'role' has no value"),
        ({"seed": 1.5}, "column 'seed' is double, expected int32"),
        ({"seed": 2**40}, "column 'seed' is int64, expected int32"),
        ({"sample_id": 2**70}, "column 'sample_id', expected int64"),
        ({"value": "0.5"}, "column 'value', expected double"),
        ({"value": True}, "column 'value', expected double"),
        ({"role": 3}, "column 'role', expected string"),
        ({"role": "\ud800"}, "column 'role', expected string"),
    ],
)
def test_a_row_that_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        schemas.from_rows("scores", [SCORE, {**SCORE, **change}])


def test_from_rows_takes_numbers_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    row = {**SCORE, "seed": np.int64(4), "value": np.float32(0.5), "role": np.str_("other")}
    found = schemas.from_rows("scores", [row]).to_pylist()[0]
    assert (found["seed"], found["value"], found["role"]) == (4, 0.5, "other")


def test_a_table_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"scores\.parquet: table 'scores': column 'role'"):
        schemas.write(scores().drop_columns(["role"]), "scores", tmp_path / "scores.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        schemas.write(scores(), "scores", tmp_path / "scores.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "one bit"])
def test_a_damaged_file_is_named_with_the_fix(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "scores.parquet"
    many = pa.concat_tables([scores(sample_id=pa.array([n, n + 1])) for n in range(500)])
    schemas.write(many, "scores", path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 1
    path.write_bytes(
        {"empty": b"", "text": b"a,b\n1,2\n", "cut": whole[:-9], "one bit": bytes(flipped)}[damage]
    )
    with pytest.raises(SchemaError, match="not a readable Parquet file") as caught:
        schemas.read(path, "scores")
    assert f"{path}: " in str(caught.value)
    assert f"delete {path} and run the study again" in str(caught.value)


def test_a_damaged_file_of_a_result_sends_the_whole_result_away(tmp_path: Path) -> None:
    path = tmp_path / "done" / "abc" / "samples" / "0.parquet"
    path.parent.mkdir(parents=True)
    (tmp_path / "done" / "abc" / "manifest.json").write_text("{}")
    path.write_bytes(b"")
    with pytest.raises(SchemaError, match=f"delete {tmp_path / 'done' / 'abc'} and run"):
        schemas.read(path, "samples")


def test_a_drifted_file_is_named_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(scores(value=pa.array(["a", "b"])), path)
    with pytest.raises(SchemaError, match="column 'value' is string, expected double; delete"):
        schemas.read(path, "scores")


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="table 'scores' is missing; run the study"):
        schemas.read(tmp_path / "scores.parquet", "scores")
