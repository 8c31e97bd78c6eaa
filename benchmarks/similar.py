"""Paraphrases planted among other rows: how many `distforget similar` finds, and what it costs.

    python benchmarks/similar.py [--rows 100000] [--distractors docstrings|people|short]

`planted.jsonl` holds 20 requests with four paraphrases each, written by hand: words swapped, parts
reordered, rewritten, translated or abbreviated. Distractors are the docstrings of the installed
Python packages (real English, each once), or questions and answers about made-up people, all alike,
or short ones about made-up places.
A distractor that is found is a false find. The second search has the other half of the requests, on
the embeddings that were kept.
"""

from __future__ import annotations

import ast
import json
import random
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, parser, peak_while, report

from distforget.engine.similar import Found, Wish, find
from distforget.finding.embedders import EmbedderConfig
from distforget.finding.texts import Texts
from distforget.placement import Placement
from distforget.sources._pairs import Columns
from distforget.sources.biographies import others

PLANTED = Path(__file__).parent / "planted.jsonl"
MEASURES = ("cosine", "overlap")


def docstrings() -> Iterator[tuple[str, str]]:
    """What functions and classes of installed packages are said to do, each text once."""
    seen = set()
    for place in ("purelib", "stdlib"):
        for path in sorted(Path(sysconfig.get_paths()[place]).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text("utf-8"))
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    continue
                said = " ".join((ast.get_docstring(node) or "").split())[:300]
                if len(said) > 40 and "\0" not in said and said not in seen:
                    seen.add(said)
                    yield f"What does {node.name} in {path.stem} do?", said


def people(rows: int) -> Iterator[tuple[str, str]]:
    """Questions and answers about made-up people."""
    for low in range(0, rows, 10_000):
        for table in others(low, min(low + 10_000, rows), seed=0):
            yield from zip(table["question"].to_pylist(), table["answer"].to_pylist(), strict=True)


def short() -> Iterator[tuple[str, str]]:
    """Questions and answers of a few words about made-up places, without end."""
    draw, syllables = random.Random(0), ("ka", "lo", "mi", "ren", "tu", "vas", "der", "nor")
    asked = ("How far is it to {}?", "Who founded {}?", "Which river runs through {}?")
    while True:
        place, other = ("".join(draw.choices(syllables, k=3)).title() for _ in range(2))
        yield draw.choice(asked).format(place), f"{other}, {draw.randrange(1000)}."


def write(path: Path, rows: int, kind: str) -> dict[int, dict[str, Any]]:
    """Write training data; returns what was planted, by row."""
    planted = [json.loads(line) for line in PLANTED.read_text("utf-8").splitlines()]
    source = {"docstrings": docstrings, "people": lambda: people(rows), "short": short}[kind]()
    places = random.Random(0).sample(range(rows + len(planted)), len(planted))
    where = dict(zip(places, planted, strict=True))
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows + len(planted)):
            pair = where.get(number)
            if pair is None:
                question, answer = next(source)
                pair = {"question": question, "answer": answer}
            row = {name: pair[name] for name in ("question", "answer")}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return where


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--rows", type=int, default=100_000)
    made.add_argument(
        "--distractors", choices=("docstrings", "people", "short"), default="docstrings"
    )
    made.add_argument("--dtype", default="float32")
    made.add_argument("--by-chance", type=float, default=0.5)
    made.add_argument("--scratch", type=Path, help="folder to be kept; else a temporary one")
    given = made.parse_args()
    rows = 2_000 if given.quick else given.rows
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.scratch or Path(temporary)
        folder.mkdir(exist_ok=True)
        where = write(folder / "train.jsonl", rows, given.distractors)
        wish = Wish(EmbedderConfig(dtype=given.dtype), by_chance=given.by_chance)
        results = []
        for half in (0, 1):
            targets = [
                p for p in where.values() if p["kind"] == "target" and p["target"] % 2 == half
            ]
            forget = folder / f"forget{half}.jsonl"
            forget.write_text("".join(_request(p) for p in targets), "utf-8")
            found: list[Found] = []

            def work(forget: Path = forget, found: list[Found] = found) -> None:
                columns = Columns()
                data = Texts(str(folder / "train.jsonl"), "--train-data", columns)
                requests = Texts(str(forget), "--forget", columns)
                found.append(find(data, requests, wish, Placement(store=folder / "store"), print))

            seconds, peak = peak_while(work)
            results.append(_judged(found[0], where, half, seconds, peak))
    about = {**machine("cpu"), "rows": rows, "distractors": given.distractors}
    report("Planted paraphrases found", results, {**about, "dtype": given.dtype}, given.output)


def _request(pair: dict[str, Any]) -> str:
    return json.dumps({**pair, "role": "target", "target_id": f"r{pair['target']}"}) + "\n"


def _judged(
    found: Found, where: dict[int, dict[str, Any]], half: int, seconds: float, peak: float
) -> dict[str, Any]:
    hits = {(row["target_id"], row["sample_id"]) for row in found.similar.to_pylist()}
    row: dict[str, Any] = {"search": ("first", "second")[half]}
    mine = {n: p for n, p in where.items() if p["target"] % 2 == half}
    for kind in ("target", "swapped", "reordered", "rewritten", "translated", "abbreviated"):
        ids = {(f"r{p['target']}", n) for n, p in mine.items() if p["kind"] == kind}
        row[kind] = f"{len(ids & hits)} of {len(ids)}"
    right = {(f"r{p['target']}", n) for n, p in mine.items()}
    row["false finds"] = len(hits - right)
    cuts = np.median(found.cuts_T2, axis=0)
    row |= {f"{name} cut": float(cut) for name, cut in zip(MEASURES, cuts, strict=True)}
    return {**row, "seconds": seconds, "peak GiB": peak}


if __name__ == "__main__":
    main()
