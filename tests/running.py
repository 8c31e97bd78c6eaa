"""Runs studies through the command line, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DISTFORGET = str(Path(sys.executable).with_name("distforget"))


@dataclass
class Run:
    """A command in a process group of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def until(self, wanted: Callable[[str], bool], seconds: float = 240) -> str:
        """Read output up to a line that is wanted; '' if the process ended before."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        for line in self.process.stdout:
            self.lines.append(line)
            if wanted(line):
                return line
            assert time.monotonic() < deadline, "".join(self.lines)
        return ""

    def finish(self, seconds: float = 400) -> int:
        """Read to the end; the exit code."""
        self.until(lambda line: False, seconds)
        return self.process.wait(30)

    def kill_group(self) -> None:
        """SIGKILL to the driver and all it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    @property
    def text(self) -> str:
        """All output so far."""
        return "".join(self.lines)


def start(*arguments: str) -> Run:
    """Start `distforget ...`; output and errors in one stream."""
    return Run(
        subprocess.Popen(
            [DISTFORGET, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    )


def run(*arguments: str) -> Run:
    """Run `distforget ...` to its end."""
    started = start(*arguments)
    started.finish()
    return started


@dataclass
class Undisturbed:
    """A finished study."""

    study: Path
    store: Path
    output: str
    tables: Path
