"""What must hold of a store after faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tests.running import Undisturbed
from tests.system.test_run import scores_of


def equal_to_undisturbed(store: Path, undisturbed: Undisturbed) -> None:
    """Every cell once and done; scores and comparisons as if nothing had happened."""
    name = undisturbed.tables.name
    tables = store / "studies" / name
    cells, expected = (
        pd.read_parquet(folder / "cells.parquet").sort_values("cell", ignore_index=True)
        for folder in (tables, undisturbed.tables)
    )
    assert list(cells["cell"]) == list(expected["cell"])
    assert cells["cell"].is_unique
    assert set(cells["state"]) == {"done"}
    pd.testing.assert_frame_equal(scores_of(tables), scores_of(undisturbed.tables))
    for table in ("samples", "comparisons"):
        here, there = (
            pd.read_parquet(folder / f"{table}.parquet") for folder in (tables, undisturbed.tables)
        )
        pd.testing.assert_frame_equal(here, there)


def nothing_left_over(store: Path) -> None:
    """No temporary file, no claim, no checkpoint of a step that is done."""
    left = [path for place in ("tmp", "claims", "work") for path in (store / place).glob("*")]
    left += [path for path in store.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


def finished(store: Path) -> dict[str, int]:
    """When each result's manifest was written, by key. A result that is not whole is an error."""
    found = {}
    for manifest in (store / "done").glob("*/manifest.json"):
        folder = manifest.parent
        sizes = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file() and path != manifest
        }
        assert sizes == json.loads(manifest.read_text())["files"], folder
        found[folder.name] = manifest.stat().st_mtime_ns
    return found


@dataclass(frozen=True)
class Fault:
    """What one fault did."""

    moment: str
    kind: str
    exact: bool
    lost: int
    """Results that were there before it and are not, or not whole, afterwards."""
    doubled: int
    """Results that were there before it and were computed again."""
    orphan_seconds: float | None = None
    """How long processes of a run whose driver was killed lived on."""


class Ledger:
    """Finds out what faults did to a store: results lost, results computed twice."""

    def __init__(self, store: Path, faults: list[Fault]) -> None:
        self.store, self.faults = store, faults
        self.done = finished(store)

    def note(
        self, moment: str, kind: str, exact: bool = True, seconds: float | None = None
    ) -> None:
        """Look at the store after a fault."""
        now = finished(self.store)
        lost = len(self.done.keys() - now.keys())
        again = sum(now[key] != time for key, time in self.done.items() if key in now)
        self.done = now
        self.faults.append(Fault(moment, kind, exact, lost, again, seconds))
        assert (lost, again) == (0, 0), self.faults[-1]
