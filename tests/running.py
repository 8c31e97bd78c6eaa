"""Runs studies through the command line, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DISTFORGET = str(Path(sys.executable).with_name("distforget"))


@dataclass
class Run:
    """A command in a process group of its own, whose output is read as it comes."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_for(
        self, reached: Callable[[], bool], seconds: float = 600, pause: float = 5e-4
    ) -> bool:
        """Look again and again until something is so; False if the process ended before."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None:
                return reached()
            assert time.monotonic() < deadline, self.text
            time.sleep(pause)
        return True

    def says(self, words: str) -> bool:
        """Whether it has printed this."""
        return any(words in line for line in self.lines)

    def until(self, words: str) -> bool:
        """Wait until it prints this; False if it ended before."""
        return self.wait_for(lambda: self.says(words), pause=0.02)

    def finish(self, seconds: float = 600) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(seconds)
        self.reader.join(30)
        return code

    def kill_group(self) -> None:
        """SIGKILL to the driver and all it started; Ray's workers are in groups of their own."""
        kill_family(self.process)

    def descendants(self) -> list[psutil.Process]:
        """All processes that it started, and those that they started."""
        return descendants(self.process.pid)

    def kill_worker(self, wanted: Callable[[psutil.Process], bool]) -> bool:
        """SIGKILL to the first of its processes that is wanted; False if there is none."""
        for process in self.descendants():
            with suppress(psutil.Error):
                if wanted(process):
                    process.kill()
                    return True
        return False

    @property
    def text(self) -> str:
        """All output so far."""
        return "".join(self.lines)


def descendants(pid: int) -> list[psutil.Process]:
    """All processes that this one started, and those that they started; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def kill_family(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a process that leads its group, and to all it started in groups of their own.

    Any of them may end on its own between being listed and being killed.
    """
    family = descendants(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(30)
    psutil.wait_procs(family, 30)


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
