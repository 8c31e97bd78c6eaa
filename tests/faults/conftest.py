"""Puts what each fault did into one table: on the terminal, as Markdown in $FAULTS_TABLE."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.checks import Fault

COLUMNS = ("moment", "kind", "times", "exactly then", "lost", "doubled", "orphans at most")


def _rows(faults: list[Fault]) -> Iterator[tuple[str, ...]]:
    """A row for each moment and kind, in the order in which they first happened."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind, fault.moment].append(fault)
    for (kind, moment), found in groups.items():
        lived = [f.orphan_seconds for f in found if f.orphan_seconds is not None]
        yield (
            moment,
            kind,
            str(len(found)),
            str(sum(f.exact for f in found)),
            str(sum(f.lost for f in found)),
            str(sum(f.doubled for f in found)),
            f"{max(lived):.1f} s" if lived else "-",
        )


FAULTS = pytest.StashKey[list[Fault]]()


@pytest.fixture(scope="session")
def faults(pytestconfig: pytest.Config) -> list[Fault]:
    """Tests add what they did."""
    return pytestconfig.stash.setdefault(FAULTS, [])


def pytest_terminal_summary(config: pytest.Config) -> None:
    """Print the table."""
    rows = list(_rows(config.stash.get(FAULTS, [])))
    if not rows:
        return
    table = Table(*COLUMNS, title="faults", title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if target := os.environ.get("FAULTS_TABLE"):
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        Path(target).write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
