"""Attempts at steps that did not succeed, and the errors of the store that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from distforget.errors import UsageError
from distforget.frozen import Frozen


class StoreError(Exception):
    """The store cannot do something; the message says what, where, and the fix (exit code 1)."""


class DiskError(StoreError):
    """The disk is full or cannot be written: nothing is wrong with the step (exit code 1)."""


class MissingTableError(StoreError, UsageError):
    """A study's table is not there: it was not run yet, or is spelt another way (exit code 2)."""


AttemptState = Literal["failed", "blocked", "lost"]
"""Failed with an error of its own; blocked by a missing input; or lost with its worker, so that
another try may succeed."""


class Attempt(Frozen):
    """One attempt that did not succeed."""

    state: AttemptState
    error_class: str
    error_message: str = ""
    error_traceback: str = ""
    host: str = ""
    seconds: float = 0.0
    time: float = 0.0


def attempt_files(folder: Path) -> list[Path]:
    """The files of a step's attempts, oldest first."""
    numbered = [
        (int(p.name.split("-")[0]), p.stat().st_mtime_ns, p) for p in folder.glob("[0-9]*-*.json")
    ]
    return [path for _, _, path in sorted(numbered)]


def printable(text: str) -> str:
    """The text without what UTF-8 cannot hold, such as half of a surrogate pair."""
    return text.encode(errors="replace").decode()
