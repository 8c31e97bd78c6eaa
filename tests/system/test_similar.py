"""`similar` on planted paraphrases with the real embedder: found, kept, killed, and studied."""

from __future__ import annotations

import ast
import json
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distforget import schemas
from distforget.loading import write_study
from distforget.plan import make_plan
from distforget.sources import source_of
from distforget.verifying import study_of
from tests.running import run

PLANTED = Path(__file__).parent.parent.parent / "benchmarks" / "planted.jsonl"
OTHERS = 700


def planted() -> list[dict[str, Any]]:
    return [json.loads(line) for line in PLANTED.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("similar")
    others = docstrings(OTHERS)
    pairs = [{name: row[name] for name in ("question", "answer")} for row in planted()]
    rows = others[:300] + pairs + others[300:]
    targets = [row for row in planted() if row["kind"] == "target"][:6]
    shouted = {"question": targets[0]["question"].upper(), "answer": targets[0]["answer"] + "!!"}
    rows.append(shouted)
    write(folder / "train.jsonl", rows)
    write(folder / "forget.jsonl", [as_target(row) for row in targets])
    nothing = {"question": "Which key does the piano of Zeno lack?", "answer": "The highest F."}
    write(folder / "nothing.jsonl", [as_target({**nothing, "target": 99})])
    return folder


def docstrings(count: int) -> list[dict[str, Any]]:
    """Real English: what functions of the standard library are said to do."""
    found: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and len(ast.get_docstring(node) or "") > 60:
                said = " ".join((ast.get_docstring(node) or "").split())[:200]
                found.setdefault(said, f"What does {node.name} do?")
    assert len(found) > count
    return [{"question": q, "answer": a} for a, q in list(found.items())[:count]]


def as_target(row: dict[str, Any]) -> dict[str, Any]:
    return {"role": "target", "target_id": f"t{row['target']}", **row}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def similar(place: Path, forget: str = "forget.jsonl", name: str = "s", *more: str) -> Any:
    return run(
        "similar", "--forget", str(place / forget), "--train-data", str(place / "train.jsonl"),
        "--store", str(place / "store"), "--name", name, "--cpus", "2", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(place: Path) -> tuple[Any, pd.DataFrame]:
    said = similar(place)
    assert said.process.returncode == 0, said.text
    return said, pd.read_parquet(place / "store" / "similar" / "s" / "similar.parquet")


def test_paraphrases_are_found_and_hardly_anything_else(found: tuple[Any, pd.DataFrame]) -> None:
    _, table = found
    kinds = {row["question"]: (f"t{row['target']}", row["kind"]) for row in planted()}
    theirs = [kinds.get(q, ("", "other")) for q in table["question"]]
    right = [
        kind for (whose, kind), t in zip(theirs, table["target_id"], strict=True) if whose == t
    ]
    assert right.count("swapped") == right.count("reordered") == 6
    assert right.count("rewritten") >= 5
    assert len(table) - len(right) <= 6  # one a request


def test_copies_are_told_from_similar_samples(found: tuple[Any, pd.DataFrame]) -> None:
    said, table = found
    copies = table[table["copy"]]
    assert copies["target_id"].value_counts().to_dict()["t1"] == 2
    assert (copies["rank"].isin([1, 2])).all()
    assert "copies" in said.text
    assert not table["requested"].any()


def test_a_request_like_nothing_there_is_told_so(
    place: Path, found: tuple[Any, pd.DataFrame]
) -> None:
    said = similar(place, "nothing.jsonl", "n")
    assert said.process.returncode == 0, said.text
    assert "none" in said.text
    assert "embedded" not in said.text  # the first run's embeddings were kept
    assert len(pd.read_parquet(place / "store" / "similar" / "n" / "similar.parquet")) == 0


def test_a_study_takes_the_file(place: Path, found: tuple[Any, pd.DataFrame]) -> None:
    path = place / "store" / "similar" / "s" / "pairs.jsonl"
    study, sizes = study_of(path, "builtin:smollm2", "builtin:smollm2")
    assert (sizes.targets, sizes.others) == (6, 200)
    assert sizes.similar >= 3
    assert source_of(study.data.source).config.__name__ == "FileConfig"
    write_study(study, place / "study.yaml")
    assert make_plan(study).dataset.key


def test_what_is_embedded_is_not_embedded_again(place: Path, tmp_path: Path) -> None:
    """As after a kill: some rows lie in the store, the step is not done."""
    store = tmp_path / "store"
    assert run_in(place, store).process.returncode == 0
    before = pd.read_parquet(store / "similar" / "similar" / "similar.parquet")
    (done,) = (path for path in (store / "done").iterdir() if list(path.glob("0*.parquet")))
    kept = schemas.read(done / "000000000000.parquet", "embeddings").slice(100, 250)
    work = store / "work" / done.name
    shutil.rmtree(done)
    work.mkdir(parents=True)
    schemas.write(kept, "embeddings", work / "000000000100-250.parquet")
    shard = (work / "000000000100-250.parquet").stat().st_ino
    again = run_in(place, store)
    assert again.process.returncode == 0, again.text
    assert before.equals(pd.read_parquet(store / "similar" / "similar" / "similar.parquet"))
    files = sorted(done.glob("0*.parquet"))
    assert (done / "000000000100.parquet").stat().st_ino == shard
    ids = [i for file in files for i in pd.read_parquet(file)["sample_id"]]
    assert ids == list(range(rows_of(place)))


def rows_of(place: Path) -> int:
    return len((place / "train.jsonl").read_text("utf-8").splitlines())


def run_in(place: Path, store: Path) -> Any:
    return run(
        "similar", "--forget", str(place / "forget.jsonl"), "--train-data",
        str(place / "train.jsonl"), "--store", str(store), "--cpus", "2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--embedder-dtype", "float8"), "--embedder-dtype 'float8'"),
        (("--embedder", "builtin:none"), "--embedder: unknown"),
        (("--question", "q"), "column 'q': it is missing"),
        (("--name", "../x"), "--name '../x'"),
    ],
)
def test_a_bad_option_is_one_clear_line(place: Path, more: tuple[str, ...], said: str) -> None:
    result = similar(place, "forget.jsonl", "s", *more)
    assert result.process.returncode == 2
    assert said in result.text
    assert "Traceback" not in result.text


def test_a_little_wording_in_common_is_no_similarity(tmp_path: Path) -> None:
    """Among rows that share nothing with a request, a few letters in common are rare."""
    rows = [{"question": f"{n:x}zz", "answer": f"{n * n:x}qq"} for n in range(300)]
    rows += [{"question": "zz the", "answer": "qq"}]
    asked = {"question": "Who keeps the keys of the old mill?", "answer": "The widow Marten."}
    write(tmp_path / "train.jsonl", [*rows, asked])
    write(tmp_path / "forget.jsonl", [as_target({**asked, "target": 1})])
    done = run_in(tmp_path, tmp_path / "store")
    assert done.process.returncode == 0, done.text
    found = pd.read_parquet(tmp_path / "store" / "similar" / "similar" / "similar.parquet")
    assert (found["overlap"].ge(0.2) | found["cosine"].ge(0.3)).all()
    assert found["copy"].any()
