"""Rows from files and the hub: every format round-trips, every bad row is named with its line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget import schemas
from distforget.data import TextData
from distforget.errors import UsageError
from distforget.tracks import samples_of

Columns = ("question", "answer", "role", "target_id")

# Similar rows come before their target, and target 'b' comes before 'a'.
MIXED = [
    ("qb1", "ab1", "similar", "b"),
    ("qb", "ab", "target", "b"),
    ("qo1", "ao1", "other", None),
    ("qa", "aa", "target", "a"),
    ("qa1", "aa1", "similar", "a"),
    ("qa2", "aa2", "similar", "a"),
    ("qb2", "ab2", "similar", "b"),
    ("qo2", "ao2", "other", None),
    ("qb3", "ab3", "similar", "b"),
]
SELECTED = [
    (0, "target", 1, None, "qb", "ab"),
    (1, "target", 2, None, "qa", "aa"),
    (2, "similar", 1, 1, "qb1", "ab1"),
    (3, "similar", 1, 2, "qb2", "ab2"),
    (4, "similar", 2, 1, "qa1", "aa1"),
    (5, "similar", 2, 2, "qa2", "aa2"),
    (6, "other", None, None, "qo1", "ao1"),
]


def config(
    path: Path | str,
    targets: int = 2,
    similar: int = 2,
    others: int = 1,
    kind: str = "file",
    **source: Any,
) -> TextData:
    return TextData.model_validate(
        {
            "source": {"kind": kind, "path": str(path), **source},
            "similar": {"per_target": similar},
            "targets": targets,
            "others": others,
        }
    )


def read(chosen: TextData) -> pa.Table:
    return samples_of(chosen, 0)


def write(path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = Columns) -> Path:
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    else:
        values = {c: [row[i] for row in rows] for i, c in enumerate(columns)}
        pq.write_table(pa.table(values), path)
    return path


OF_TEXT = ("sample_id", "role", "target_index", "similar_rank", "question", "answer")


def read_tuples(found: pa.Table) -> list[tuple[Any, ...]]:
    filled = (*OF_TEXT, "source_index")
    assert all(found[c].null_count == len(found) for c in found.column_names if c not in filled)
    return list(zip(*(found[c].to_pylist() for c in OF_TEXT), strict=True))


def refused(chosen: TextData) -> str:
    with pytest.raises(UsageError) as caught:
        read(chosen)
    message = str(caught.value)
    assert "\n" not in message
    return message


SUFFIXES = ["jsonl", "csv", "parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_selects_the_first_of_each_role(tmp_path: Path, suffix: str) -> None:
    found = read(config(write(tmp_path / f"d.{suffix}", MIXED)))
    assert read_tuples(found) == SELECTED
    named = found.add_column(0, "dataset", pa.array(["d"] * len(found), pa.string()))
    schemas.check(named, "samples", "test")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_role_the_first_rows_are_targets(tmp_path: Path, suffix: str) -> None:
    rows = [(f"q{i}", f"a{i}") for i in range(6)]
    path = write(tmp_path / f"d.{suffix}", rows, ("question", "answer"))
    found = read(config(path, similar=0, others=3))
    assert read_tuples(found) == [
        (0, "target", 1, None, "q0", "a0"),
        (1, "target", 2, None, "q1", "a1"),
        *((i, "other", None, None, f"q{i}", f"a{i}") for i in (2, 3, 4)),
    ]


TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: text.strip() != "")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_texts_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, pairs: list[tuple[str, str]]
) -> None:
    rows: list[tuple[Any, ...]] = list(pairs)
    path = write(tmp_path_factory.mktemp("t") / f"d.{suffix}", rows, ("question", "answer"))
    sizes = {"targets": 1, "similar": 0, "others": len(pairs) - 1}
    found = read(config(path, **sizes))
    assert list(zip(*(found[c].to_pylist() for c in Columns[:2]), strict=True)) == pairs


@pytest.mark.parametrize(("target", "similar"), [(3, 3), (3, "3"), (3.0, 3), ("t", " t ")], ids=str)
def test_ids_match_as_text(tmp_path: Path, target: object, similar: object) -> None:
    rows = [("q", "a", "target", target), ("q1", "a1", "similar", similar)]
    found = read(config(write(tmp_path / "d.jsonl", rows), targets=1, similar=1, others=0))
    assert found["target_index"].to_pylist() == [1, 1]


def test_parquet_integer_ids_with_gaps(tmp_path: Path) -> None:
    rows = [("q", "a", "target", 7.0), ("q1", "a1", "similar", 7.0), ("o", "o", "other", None)]
    path = write(tmp_path / "d.parquet", rows)
    found = read(config(path, targets=1, similar=1))
    assert found["role"].to_pylist() == ["target", "similar", "other"]


def test_csv_with_byte_order_mark_blank_and_long_records(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(b'\xef\xbb\xbfquestion,answer\r\n"two\r\nlines","a, b"\r\n\r\nq2,a2\r\n')
    found = read(config(path, targets=1, similar=0))
    assert found["question"].to_pylist() == ["two\r\nlines", "q2"]
    assert found["answer"].to_pylist() == ["a, b", "a2"]


GOOD = [("q", "a", "target", "t1"), ("q1", "a1", "similar", "t1"), ("q2", "a2", "target", "t2")]
BAD_ROWS = {
    "null question": ((None, "a", "other", "x"), "'question'", "missing|empty"),
    "empty question": (("", "a", "other", "x"), "'question'", "empty"),
    "blank answer": (("q", " \t", "other", "x"), "'answer'", "empty"),
    "unknown role": (
        ("q", "a", "Target", "x"),
        "'role'",
        "neighbour, other",
    ),
    "no role": (("q", "a", None, "x"), "'role'", "neighbour, other"),
    "unknown target": (("q", "a", "similar", "t9"), "'target_id'", "'t9'"),
    "similar without id": (("q", "a", "similar", None), "'target_id'", "add it"),
    "target twice": (("q", "a", "target", "t1"), "'target_id'", "two targets have the id 't1'"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_named(tmp_path: Path, suffix: str, case: str) -> None:
    row, column, fix = BAD_ROWS[case]
    path = write(tmp_path / f"d.{suffix}", [*GOOD, row])
    place = {"jsonl": "line 4", "csv": "line 5", "parquet": "row 4"}[suffix]
    message = refused(config(path, targets=1, similar=1, others=0))
    assert message.startswith(f"{path}: {place}, column {column}: ")
    assert any(part in message for part in fix.split("|"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"answer": "a"}', "line 2, column 'question': it is missing"),
        (b'{"question": 5, "answer": "a"}', "line 2, column 'question': it is int '5', not text"),
        (b'{"question": "q", "answer": ["a"]}', "line 2, column 'answer': it is list"),
        (b'{"question": "q", "answer": "a\\u0000"}', "line 2, column 'answer': it holds a NUL"),
        (b'{"question": "\\ud83d", "answer": "a"}', "column 'question': it holds half a surrogate"),
        (b'{"question": "q", "answer": ', "line 2: not valid JSON"),
        (b"[" * 200_000, "line 2: not valid JSON"),
        (b'{"question": ' + b"9" * 5000 + b"}", "line 2: not valid JSON"),
        (b"[1]", "line 2: it is list, not an object"),
        (b'{"question": "q\0", "answer": "a"}', "line 2: it holds a NUL byte"),
        (b'{"question": "\xff", "answer": "a"}', "line 2: it is not UTF-8 (byte 0xff)"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_bad_json_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"question": "q", "answer": "a"}\n' + line + b"\n")
    message = refused(config(path, targets=1, similar=0))
    assert message.startswith(f"{path}: line 2")
    assert expected in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"question,answer\nq,a\nq,a,b\n", "line 3: it has 3 columns, the first line has 2"),
        (b'question,answer\n"q\nq",a\nq\n', "line 4: it has 1 columns, the first line has 2"),
        (b'question,answer\nq,a\n"q,a\nq,a\n', "line 3: not valid CSV"),
        (b"question,answer\nq,a\nq\0,a\n", "line 3: it holds a NUL byte"),
        (b"question,answer\nq,a\nq,\xe4\n", "line 3: it is not UTF-8 (byte 0xe4)"),
        (b"question,answer,answer\nq,a,b\n", "line 1: two columns are named 'answer'"),
        (b"question,answer\n", "it has no rows"),
    ],
)
def test_bad_csv_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(content)
    message = refused(config(path, targets=1, similar=0, others=0))
    assert message.startswith(f"{path}: {expected}")


def test_parquet_with_bad_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    chosen = config(path, targets=1, similar=0)
    path.write_bytes(b"PAR1 this is no Parquet file PAR1")
    assert refused(chosen).startswith(f"{path}: it cannot be read (Parquet")
    write(path, [("q", 1), ("q", 2)], ("question", "answer"))
    assert refused(chosen).startswith(f"{path}: row 1, column 'answer': it is int '1', not text")
    write(path, [("q", "a"), ("q\0", "a")], ("question", "answer"))
    assert refused(chosen).startswith(f"{path}: row 2, column 'question': it holds a NUL byte")
    raw = pa.array([b"a", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"question": ["q", "q"], "answer": raw}), path)
    assert refused(chosen).startswith(f"{path}: row 2, column 'answer': it is not UTF-8")
    write(path, [], ("question", "answer"))
    assert refused(chosen).startswith(f"{path}: it has no rows")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file_and_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d.{suffix}"
    assert refused(config(path)) == f"{path}: no such file or folder; correct data.source.path"
    path.touch()
    assert refused(config(path)).startswith(f"{path}: the file is empty")


def test_blank_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("\n \n")
    assert "it has no rows" in refused(config(tmp_path / "d.jsonl"))


@pytest.mark.parametrize("name", ["d.txt", "d", "d.gz"])
def test_unknown_suffix_lists_the_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    message = refused(config(tmp_path / name))
    assert "must end in .jsonl, .ndjson, .json, .csv" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_missing_column_lists_the_present(tmp_path: Path, suffix: str, column: str) -> None:
    columns = tuple("text" if c == column else c for c in ("question", "answer"))
    path = write(tmp_path / f"d.{suffix}", [("q", "a")], columns)
    message = refused(config(path, similar=0))
    assert f"column {column!r}: it is missing; the row has: {', '.join(columns)}" in message


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"targets": 3}, "it has 2 targets, the study asks for 3: lower data.targets"),
        ({"others": 3}, "it has 2 others, the study asks for 3: lower data.others"),
        (
            {"similar": 3},
            "line 4: this target has 2 rows with role 'similar', the study asks for 3: add rows "
            "with its target_id, lower data.similar.per_target, or set data.similar.too_few: "
            "fewer",
        ),
    ],
)
def test_too_few_rows_name_the_setting(
    tmp_path: Path, sizes: dict[str, int], expected: str
) -> None:
    path = write(tmp_path / "d.jsonl", MIXED)
    assert refused(config(path, **sizes)) == f"{path}: {expected}"


HUB = """
import json, sys
from tests.unit.test_files import config, read
from distforget.errors import UsageError
found = read(config(sys.argv[1], kind="hub"))
try:
    read(config("nobody-here/no-such-data", kind="hub"))
except UsageError as error:
    print(json.dumps([found.to_pylist(), str(error)]))
"""


def test_hub_reads_a_split_and_says_what_to_set_when_unreachable(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.jsonl", MIXED)
    offline = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(tmp_path / "data")],
        env=offline,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, message = json.loads(done.stdout.splitlines()[-1])
    assert [tuple(row[c] for c in OF_TEXT) for row in rows] == SELECTED
    assert message.startswith("nobody-here/no-such-data (split train): cannot be loaded")
    for word in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "source: file"):
        assert word in message
    assert "\n" not in message
