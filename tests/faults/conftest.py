"""A study slow enough to be struck; one table of all faults (Markdown in $FAULTS_TABLE)."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.conftest import study_content, write_study
from tests.faults.checks import Fault
from tests.running import Undisturbed, run

COLUMNS = ("moment", "kind", "times", "exactly then", "lost", "doubled", "orphans at most")


@pytest.fixture(scope="session")
def slow(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A study whose cells take long enough to be struck within, run once from start to end."""
    folder = tmp_path_factory.mktemp("slow")
    settings = {"steps": 40, "learning_rate": 1e-5}
    content = study_content(
        tiny_model,
        methods=[{"name": name, "settings": settings} for name in ("GA_KLN", "NPO_KLN")],
        unlearn_targets=3,
        verify={"max_new_tokens": 120, "similar": 3, "others": 2},
    )
    study = write_study(folder / "slow.yaml", content)
    done = run("run", str(study), "--store", str(folder / "store"))
    assert done.process.returncode == 0, done.text
    return Undisturbed(study, folder / "store", done.text, folder / "store/studies/tiny")


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
    Console(width=120).print(table)
    if target := os.environ.get("FAULTS_TABLE"):
        lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
        Path(target).write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
