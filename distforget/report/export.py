"""Exports a study's tables as a Hugging Face `datasets` folder with a data card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from distforget import disk, schemas
from distforget.errors import UsageError
from distforget.plan import Plan
from distforget.report.card import Size, card
from distforget.report.harness import results
from distforget.report.study_tables import StudyTables, facts_of, read_current
from distforget.store import Store


def export_study(plan: Plan, store: Store, folder: Path) -> list[Path]:
    """Write README.md, data/TABLE.parquet and results/MODEL/results_DATE.json; return the paths.

    The folder appears complete or not at all.

    Raises:
        UsageError: the study was not run or has tables of other settings, or the folder holds
            something or cannot be written.
        StoreError: a result is gone or damaged.
    """
    name = plan.study.name
    tables = read_current(plan, store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: there is something already; give a new or an empty folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        sizes = _write_tables(name, store, temporary / "data")
        written = store.study_table(name, "scores").stat().st_mtime
        done = [row["cell"] for row in tables.cells.to_pylist() if row["state"] == "done"]
        facts = facts_of(plan, store, done)
        paths = _write_results(plan, tables, facts, written, temporary)
        states = tables.outcomes["state"].value_counts()
        cells = {"planned": len(plan.cells), **{str(s): int(n) for s, n in states.items()}}
        text = card(plan.study, sizes, cells, facts, tables.date, paths)
        disk.write(temporary / "README.md", text.encode())
        disk.sync_folder(temporary)
        temporary.rename(folder)
        disk.sync_folder(folder.parent)
    except OSError as error:
        raise UsageError(f"{folder}: cannot write: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_tables(study: str, store: Store, folder: Path) -> dict[str, Size]:
    """Write each table of the study, checked against its schema."""
    folder.mkdir()
    sizes = {}
    for name in schemas.tables():
        if store.study_table(study, name).is_file():
            table = store.read_study_table(study, name)
            path = folder / f"{name}.parquet"
            schemas.write(table, name, path)
            sizes[name] = Size(len(table), path.stat().st_size)
    return sizes


def _write_results(
    plan: Plan,
    tables: StudyTables,
    facts: Mapping[str, tuple[str, ...]],
    written: float,
    folder: Path,
) -> tuple[str, ...]:
    """Write one file per model, placed and named as lm-evaluation-harness does."""
    date = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    paths = []
    for model in plan.study.models:
        found = results(plan, tables, model, facts, written)
        path = folder / "results" / model.name / f"results_{date}.json"
        path.parent.mkdir(parents=True)
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        disk.write(path, text.encode())
        disk.sync_folder(path.parent)
        paths.append(path.relative_to(folder).as_posix())
    return tuple(paths)
