"""Questions and answers in each shape that people have them in come out as the same rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from distforget.data import TextData
from distforget.errors import UsageError
from distforget.tracks import samples_of

ROWS = [
    {"question": f"Who wrote, in {year}; the book?", "answer": f'"{name}" did.\tSo they say.'}
    for year, name in ((1950, "Ada Lund"), (1960, "Bo Ng"), (1970, "Éva Tóth"), (1980, "李 雷"))
]
TABLE = pa.Table.from_pylist(ROWS)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv(delimiter: str) -> bytes:
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(delimiter=delimiter)
    pyarrow.csv.write_csv(TABLE, sink, options)
    return bytes(sink.getvalue())


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    return bytes(sink.getvalue())


def arrow(new: Callable[[Any, pa.Schema], Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with new(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return bytes(sink.getvalue())


FILES = {
    "lines.jsonl": lines(ROWS),
    "lines.ndjson": lines(ROWS),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "comma.csv": csv(","),
    "semicolon.csv": csv(";"),
    "tab.csv": csv("\t"),
    "tab.tsv": csv("\t"),
    "table.parquet": parquet(),
    "file.arrow": arrow(pa.ipc.new_file),
    "stream.arrow": arrow(pa.ipc.new_stream),
}


def data(path: Path, **source: Any) -> TextData:
    return TextData.model_validate(
        {
            "source": {"kind": "file", "path": str(path), **source},
            "similar": {"per_target": 0},
            "targets": 1,
            "others": 3,
        }
    )


def read(path: Path, **source: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        samples_of(data(path, **source), 0).select(["question", "answer"]).to_pylist()
    )
    return rows


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    return content


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(compressed(FILES[name], suffix))
    assert read(path) == ROWS


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(compressed(FILES[name], suffix)[:-12])
    with pytest.raises(UsageError, match=r"it cannot be read|not valid|not UTF-8") as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_folder_of_shards_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        (tmp_path / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(lines([row])))
    (tmp_path / "README.md").write_text("no data")
    assert read(tmp_path) == ROWS
    (tmp_path / "part-9.csv").write_bytes(FILES["comma.csv"])
    with pytest.raises(UsageError, match=r"part-3.jsonl.gz and part-9.csv are of two formats"):
        read(tmp_path)


def test_a_bad_row_of_a_shard_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "b.jsonl").write_bytes(lines([ROWS[0], {"question": "Who?", "answer": ""}]))
    with pytest.raises(UsageError, match=r"b\.jsonl: line 2, column 'answer': it is empty"):
        read(tmp_path)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file in it ends in \.jsonl, .*data\.source\.path"):
        read(tmp_path)


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    mine = datasets.Dataset.from_list(ROWS)
    mine.save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one") == ROWS
    datasets.DatasetDict({"test": mine}).save_to_disk(tmp_path / "several")
    assert read(tmp_path / "several", split="test") == ROWS
    with pytest.raises(UsageError, match=r"it has the splits test; .* data\.source\.split"):
        read(tmp_path / "several")


NAMED = {"question": "prompt", "answer": "response_0", "role": "part", "target_id": "of"}


def test_columns_with_other_names(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "response_0": "a", "response_1": "z", "part": "target", "of": 7},
        {"prompt": "q1", "response_0": "a1", "response_1": "z", "part": "similar", "of": 7},
    ]
    (tmp_path / "d.jsonl").write_bytes(lines(rows))
    asked = {"targets": 1, "others": 0, "similar": {"per_target": 1}}
    source = {"kind": "file", "path": str(tmp_path / "d.jsonl"), "columns": NAMED}
    found = samples_of(TextData.model_validate({"source": source, **asked}), 0)
    assert found["answer"].to_pylist() == ["a", "a1"]
    assert found["role"].to_pylist() == ["target", "similar"]
    with pytest.raises(UsageError, match=r"line 1, column 'question': it is missing; .*response_0"):
        read(tmp_path / "d.jsonl")


def chat(style: str, turns: list[tuple[str, str]]) -> dict[str, Any]:
    """A row as datasets of chats have it: OpenAI's names, or those of ShareGPT."""
    if style == "messages":
        return {"messages": [{"role": who, "content": said} for who, said in turns]}
    names = {"user": "human", "assistant": "gpt"}
    return {
        "conversations": [{"from": names.get(who, who), "value": said} for who, said in turns],
        "id": 3,
    }


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("style", ["messages", "conversations"])
def test_chats_give_their_last_exchange_or_their_first(
    style: str, suffix: str, tmp_path: Path
) -> None:
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi."), ("user", "Who?")]
    rows = [chat(style, [*turns, ("assistant", str(row["answer"]))]) for row in ROWS]
    path = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(lines(rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert [row["answer"] for row in read(path)] == [row["answer"] for row in ROWS]
    assert {row["question"] for row in read(path)} == {"Who?"}
    assert read(path, exchange="first") == [{"question": "Hello", "answer": "Hi."}] * 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (chat("messages", [("user", "Who?")]), "no turn of the assistant follows one of the user"),
        ({"messages": None}, "no turn of the assistant follows one of the user"),
        ({"messages": [{"role": "user"}]}, "turn 1 has no role and content"),
        (chat("messages", [("user", "Who?"), ("assistant", " ")]), "column 'answer': it is empty"),
    ],
)
def test_a_chat_without_an_answer_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(lines([row]))
    with pytest.raises(UsageError, match=said) as error:
        read(tmp_path / "d.jsonl")
    assert "line 1" in str(error.value)


def test_rows_keep_their_place_in_the_source(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(lines(ROWS))
    found = samples_of(data(tmp_path / "d.jsonl"), 0)
    assert found["source_index"].to_pylist() == [0, 1, 2, 3]


def test_neighbours_are_taken_from_the_others_in_any_amount(tmp_path: Path) -> None:
    rows = [
        {"question": "Where was Ada born?", "answer": "Here."},
        *({"question": f"Something else {i}?", "answer": f"{i}."} for i in range(30_000)),
        {"question": "Where was Bo born?", "answer": "There."},
    ]
    (tmp_path / "d.jsonl").write_bytes(lines(rows))
    chosen = data(tmp_path / "d.jsonl").model_copy(update={"neighbours": 1, "others": 30_000})
    found = samples_of(chosen, 0)
    near = found.filter(pc.equal(found["role"], "neighbour")).to_pylist()
    assert [(row["answer"], row["target_index"]) for row in near] == [("There.", 1)]
    assert found["sample_id"].to_pylist() == list(range(30_002))
    assert "There." not in found.filter(pc.equal(found["role"], "other"))["answer"].to_pylist()
