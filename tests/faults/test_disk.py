"""A disk that fills up, or turns read-only, in each stage: one clear line, then it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.checks import Fault, Ledger, equal_to_undisturbed, nothing_left_over
from tests.faults.moments import Watch, watch
from tests.running import Run, Undisturbed, run, start

pytestmark = pytest.mark.faults

MEGABYTES = 8
PAGE = os.sysconf("SC_PAGESIZE")

STAGES: dict[str, Callable[[Watch], bool]] = {
    "data": lambda w: w.run.says("data and models:"),
    "fine-tuning": lambda w: w.run.says("fine-tuning:"),
    "floor and ceiling answers": lambda w: w.run.says("floor, ceiling"),
    "cells": lambda w: bool(w.new(w.plan.cells)),
    "tables": lambda w: all(w.store.is_done(step.key) for step in w.plan.cells),
}


def mount(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    tried = mount("-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder))
    if tried.returncode:
        pytest.skip(f"a file system cannot be mounted here: {tried.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path, free_pages: int) -> None:
    """Write a file until the disk is full, then give a few pages back."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    os.truncate(ballast, ballast.stat().st_size - free_pages * PAGE)


def assert_one_clear_line(ended: Run, reason: str) -> None:
    assert ended.finish() == 1, ended.text
    assert [line for line in ended.lines if line.startswith("error") and reason in line], ended.text
    assert "Traceback" not in ended.text
    assert "failed" not in ended.text, ended.text


@pytest.mark.parametrize("free_pages", [0, 3])
def test_a_full_disk_in_each_stage(
    free_pages: int, slow: Undisturbed, disk: Path, faults: list[Fault]
) -> None:
    store = disk / "store"
    command = ("run", str(slow.study), "--store", str(store))
    ledger = Ledger(store, faults)
    for stage, reached in STAGES.items():
        watching = watch(start(*command), store, slow)
        assert watching.run.wait_for(lambda: reached(watching)), watching.run.text  # noqa: B023
        fill(disk / "ballast", free_pages)
        assert_one_clear_line(watching.run, "the disk is full")
        (disk / "ballast").unlink()
        ledger.note(f"in {stage}", f"full disk, {free_pages} pages left")
    go_on(command, store, slow)


def test_read_only_among_cells(slow: Undisturbed, disk: Path, faults: list[Fault]) -> None:
    store = disk / "store"
    command = ("run", str(slow.study), "--store", str(store), "--cell-workers=1")
    ledger = Ledger(store, faults)
    watching = watch(start(*command), store, slow)
    assert watching.run.wait_for(lambda: STAGES["cells"](watching)), watching.run.text
    # Refused as long as a file is open for writing.
    assert watching.run.wait_for(lambda: mount("-o", "remount,ro", str(disk)).returncode == 0)
    assert_one_clear_line(watching.run, "read-only")
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    ledger.note("in cells", "read-only")
    go_on(command, store, slow)


def go_on(command: tuple[str, ...], store: Path, slow: Undisturbed) -> None:
    """The same command, now that there is room, ends as if nothing had happened."""
    last = run(*command)
    assert last.process.returncode == 0, last.text
    equal_to_undisturbed(store, slow)
    nothing_left_over(store)
