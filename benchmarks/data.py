"""A million questions and answers of JSON Lines into a dataset: time, rows a second, peak memory.

The baseline, in the same run, is `datasets.load_dataset("json")`, which reads the same file into
Arrow files of its own and checks nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, peak_while, report

from distforget.engine.cluster import connected
from distforget.engine.data import build_dataset
from distforget.placement import Placement
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study


def write(path: Path, rows: int) -> None:
    """Write a file of so many questions and answers."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            question = f"What happened to person number {i} in the town of Example {i % 977}?"
            answer = f"Person {i} moved to number {i * 7919 % 10007}, and has lived there since."
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "data.jsonl"
        write(path, arguments.rows)
        study = Study.model_validate(
            {
                "name": "million",
                "data": {
                    "source": {"kind": "file", "path": str(path)},
                    "similar": {"per_target": 0},
                    "targets": 50,
                    "others": arguments.rows - 50,
                },
                "models": [{"name": "unused", "base": "some/model"}],
                "doses": [0],
                "methods": ["GA"],
                "unlearn_targets": 1,
            }
        )
        plan, store = make_plan(study), Store(folder / "store")

        def baseline() -> None:
            import datasets

            datasets.load_dataset(
                "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
            )

        rows: list[dict[str, Any]] = []
        base_seconds, base_peak = peak_while(baseline)
        with connected(Placement(cpus=2)):
            seconds, peak = peak_while(lambda: build_dataset(plan.dataset, study, store))
        for name, took, held in (
            ("datasets.load_dataset, nothing checked", base_seconds, base_peak),
            ("distforget: read, checked, written", seconds, peak),
        ):
            rows.append(
                {
                    "what": name,
                    "seconds": round(took, 1),
                    "rows/s": round(arguments.rows / took),
                    "peak GiB": round(held, 2),
                    "ratio": round(took / base_seconds, 2),
                }
            )
        report(f"{arguments.rows:,} rows of JSON Lines", rows, machine("cpu"), arguments.output)


if __name__ == "__main__":
    main()
