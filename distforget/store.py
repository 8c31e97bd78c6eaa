"""The folder of results: finished steps, failed attempts, and the tables of each study.

The store is the only truth about a run. It knows steps by key and nothing of what they do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
from pydantic import ValidationError

from distforget import disk, schemas
from distforget.attempts import (
    Attempt,
    AttemptState,
    DiskError,
    MissingTableError,
    StoreError,
    attempt_files,
    printable,
)
from distforget.errors import UsageError
from distforget.frozen import NAME_PATTERN
from distforget.payload import Difference, KeyedStep, differences
from distforget.provenance import facts, is_alive, machine


@dataclass(frozen=True)
class Store:
    """Results under one root: done/, attempts/, claims/, work/, tmp/, studies/."""

    root: Path

    @property
    def place(self) -> str:
        """What --store names: the folder, or a URL."""
        return str(self.root)

    def check_writable(self) -> None:
        """Write a probe file.

        Raises:
            UsageError: the root is a file, or cannot be written to.
        """
        folder = self._temporary("probe")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            folder.mkdir(parents=True)
            disk.write(folder / "probe", b"probe")
        except OSError as error:
            reason = disk.reason(error, self.root) or error.strerror or str(error)
            raise UsageError(f"--store {self.root}: cannot write there: {reason}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def is_done(self, key: str) -> bool:
        """Whether a result is there; its manifest was written last, before the rename."""
        return (self._place("done", key) / "manifest.json").is_file()

    def done(self, keys: Iterable[str]) -> set[str]:
        """The keys whose results are there; lists the folder once, which helps on slow storage."""
        try:
            there = set(os.listdir(self.root / "done"))
        except FileNotFoundError:
            return set()
        return {key for key in keys if key in there and self.is_done(key)}

    def folder(self, key: str, whole: bool = True) -> Path:
        """The folder of a result.

        Args:
            whole: False: weights are not needed, so a bucket's need not be fetched.

        Raises:
            StoreError: there is none.
        """
        if not self.is_done(key):
            raise StoreError(f"{self.root}: no result {key[:12]}; run the study first")
        return self._place("done", key)

    def payload(self, key: str) -> dict[str, Any]:
        """Everything that decided a result: stage, version, configuration, input keys.

        Raises:
            StoreError: there is no such result, or the file is damaged.
        """
        return _read_json(self.folder(key) / "payload.json")

    def manifest(self, key: str) -> dict[str, Any]:
        """Files and facts (versions, device, seconds) of a result.

        Raises:
            StoreError: there is no such result, or the file is damaged.
        """
        return _read_json(self.folder(key) / "manifest.json")

    def commit(self, step: KeyedStep, fill: Callable[[Path], None], **given: Any) -> Path:
        """Make a result durable: fill a temporary folder, manifest last, then rename.

        If another process was first, its copy stays and this one is dropped.

        Args:
            fill: writes the result's files into the folder it is given.
            given: facts to be recorded in the manifest beside `facts()`; not keyed.

        Returns:
            The folder of the result.

        Raises:
            DiskError: the disk is full or read-only; nothing is left half-written.
        """
        place = self._place("done", step.key)
        temporary = self._temporary(step.key[:16])
        try:
            temporary.mkdir(parents=True)
            place.parent.mkdir(exist_ok=True)
            fill(temporary)
            disk.write(temporary / "payload.json", step.payload.encode())
            about = {"stage": step.stage, "title": step.title}
            disk.seal(temporary, {**facts(), **given, **about})
            self._publish(temporary, place)
        except Exception as error:
            if isinstance(error, OSError) and self.is_done(step.key):
                return place
            self.explain(error, f"the result of {step.title!r}")
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return place

    def _publish(self, temporary: Path, place: Path) -> None:
        if self.is_done(place.name):
            return
        if place.is_dir() and any(place.iterdir()) and not self.is_done(place.name):
            raise StoreError(f"{place}: a result without manifest.json; delete it and run again")
        temporary.rename(place)  # fails if another process has put its result there meanwhile
        disk.sync_folder(place.parent)
        disk.sync_folder(self.root)

    @contextmanager
    def claim(
        self, key: str, on_wait: Callable[[], None] | None = None, wait: bool = True
    ) -> Iterator[bool]:
        """Claim a step for this process; the system releases the claim if the process dies.

        Correctness does not need it (see `commit`): it saves two runs from the same work. On
        storage without file locks everyone has every claim.

        Args:
            on_wait: called once, before waiting for another holder.
            wait: False: do not wait for another holder.

        Yields:
            Whether nobody else holds it; always true after waiting.

        Raises:
            DiskError: the disk is full or read-only.
        """
        path = self._place("claims", key).with_suffix(".lock")
        lock = filelock.FileLock(path, fallback_to_soft=False)
        with self.explaining("a claim"):
            path.parent.mkdir(parents=True, exist_ok=True)
            mine = disk.acquire(lock, on_wait, wait)
        try:
            yield mine
        finally:
            if lock.is_locked:
                with suppress(OSError):
                    path.unlink()  # while held: who waits for this file then looks for a new one
                lock.release()

    def record_attempt(
        self,
        step: KeyedStep,
        state: AttemptState,
        *,
        error_class: str,
        error_message: str = "",
        error_traceback: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Note an attempt that did not succeed, as one file; earlier ones are kept.

        Raises:
            DiskError: the disk is full or read-only.
        """
        attempt = Attempt(
            state=state,
            error_class=error_class,
            error_message=printable(error_message),
            error_traceback=printable(error_traceback),
            host=socket.gethostname(),
            seconds=seconds,
            time=time.time(),
        )
        folder = self._place("attempts", step.key)
        with self.explaining("an attempt"):
            folder.mkdir(parents=True, exist_ok=True)
            number = len(attempt_files(folder)) + 1
            name = f"{number:03d}-{uuid.uuid4().hex[:8]}.json"
            with self.scratch("attempt") as temporary:
                disk.write(temporary / name, attempt.model_dump_json(indent=1).encode())
                (temporary / name).replace(folder / name)
            disk.sync_folder(folder)

    def attempts(self, key: str) -> list[Attempt]:
        """Attempts that did not succeed, oldest first.

        Raises:
            StoreError: a file is damaged.
        """
        found = []
        for path in attempt_files(self._place("attempts", key)):
            try:
                found.append(Attempt.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                raise StoreError(f"{path}: not an attempt; delete this file") from error
        return found

    def attempted(self) -> set[str]:
        """The keys of steps with attempts that did not succeed."""
        return {path.name for path in (self.root / "attempts").glob("*")}

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder that is gone afterwards, or after the next `sweep` if this process is killed.

        Raises:
            DiskError: the disk is full or read-only.
        """
        folder = self._temporary(name)
        try:
            with self.explaining("a temporary folder"):
                folder.mkdir(parents=True)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def work(self, key: str) -> Path:
        """Folder of an unfinished step, for checkpoints; survives kills.

        Raises:
            DiskError: the disk is full or read-only.
        """
        folder = self._place("work", key)
        with self.explaining("a scratch folder"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, path: Path) -> None:
        """Make a file of `work`, or of a study, seen by other machines; a shared folder is."""

    def work_file(self, key: str, name: str) -> Path:
        """Where a file of `work` lies on this machine; `keep` it once it is written."""
        path = self._place("work", key) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def kept(self, key: str, name: str) -> bytes:
        """What a file of `work` holds, whichever machine writes it; empty if it is not there."""
        path = self._place("work", key) / name
        return path.read_bytes() if path.is_file() else b""

    def there(self, path: Path) -> bool:
        """Whether a file of a study is there; one in a bucket is read first."""
        return path.is_file()

    def share(self, folder: Path) -> None:
        """Make all files of a study's folder seen by other machines; a shared folder's are."""

    def drop_work(self, key: str) -> None:
        """Remove a step's scratch folder."""
        shutil.rmtree(self._place("work", key), ignore_errors=True)

    def sweep(self, max_age_seconds: float = 86_400.0) -> None:
        """Remove what dead processes left: temporary folders, claims, checkpoints of done steps.

        A process of this machine is asked for; one of another machine or container counts as
        dead when it has put nothing into its folder for `max_age_seconds`.
        """
        for path in (self.root / "tmp").glob("*-*-*-*"):
            _, owner, process, _ = path.name.rsplit("-", 3)
            with suppress(FileNotFoundError):  # its process has just finished
                newest = max(inner.stat().st_mtime for inner in (path, *path.rglob("*")))
                quiet = time.time() - newest
                dead = not is_alive(int(process)) if owner == machine() else quiet > max_age_seconds
                if dead:
                    shutil.rmtree(path, ignore_errors=True)
        for path in (self.root / "claims").glob("*.lock"):
            with self.claim(path.stem, wait=False):
                pass  # a claim that nobody holds is removed when it is let go
        for path in (self.root / "work").glob("*"):
            if self.is_done(path.name):
                self.drop_work(path.name)

    def nearest(self, step: KeyedStep) -> tuple[str, list[Difference]] | None:
        """The result of the same stage whose payload differs in the fewest fields.

        Returns:
            Its key and the differences (field, there, here); None if the stage has no result.
        """
        here = json.loads(step.payload)
        found = []
        for key, there in self._payloads():
            if there["stage"] == step.stage and key != step.key:
                found.append((key, differences(there, here)))
        return min(found, key=lambda result: len(result[1]), default=None)

    def _payloads(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and payload of each result."""
        for path in sorted((self.root / "done").glob("*/payload.json")):
            yield path.parent.name, _read_json(path)

    def study_table(self, study: str, name: str) -> Path:
        """Path of a study's table.

        Raises:
            UsageError: the study's name is none, or there is no such table.
        """
        if not re.fullmatch(NAME_PATTERN, study) or study.endswith("\n"):
            raise UsageError(f"study {study!r}: names are letters, digits, '.', '_' and '-'")
        schemas.describe(name)
        return self.root / "studies" / study / f"{name}.parquet"

    def write_study_table(self, study: str, name: str, table: pa.Table) -> None:
        """Replace a study's table atomically.

        Raises:
            SchemaError: the table does not fit its schema.
            DiskError: the disk is full or read-only.
        """
        path = self.study_table(study, name)
        with self.explaining(f"table {name!r} of study {study!r}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.scratch("table") as temporary:
                schemas.write(table, name, temporary / path.name)
                (temporary / path.name).replace(path)
            disk.sync_folder(path.parent)

    def read_study_table(self, study: str, name: str) -> pa.Table:
        """A study's table, checked against its schema.

        Raises:
            MissingTableError: the study was not run.
            UsageError: its name is none, or the table is corrupt or of another schema.
        """
        path = self.study_table(study, name)
        if not path.is_file():
            known = sorted(p.name for p in (self.root / "studies").glob("*") if p.is_dir())
            raise MissingTableError(
                f"{path}: no such table; run `distforget run {study}` first; studies in this "
                f"store: {', '.join(known) or 'none'}"
            )
        return schemas.read(path, name)

    def _temporary(self, name: str) -> Path:
        """A name in tmp/ that says whose it is, for `sweep`."""
        return self.root / "tmp" / f"{name}-{machine()}-{os.getpid()}-{uuid.uuid4().hex}"

    def _place(self, kind: str, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            raise StoreError(f"{self.root}: {key!r} is no key: keys are letters and digits")
        return self.root / kind / key

    @contextmanager
    def explaining(self, what: str) -> Iterator[None]:
        """Turn errors of a full or read-only disk into a clear DiskError."""
        try:
            yield
        except Exception as error:
            self.explain(error, what)
            raise

    def explain(self, error: Exception, what: str) -> None:
        """Raise a clear DiskError if the disk is to blame for an error, of a worker perhaps."""
        if isinstance(error, DiskError):
            raise error
        reason = disk.reason(error, self.root)
        if reason:
            raise DiskError(f"{self.root}: cannot write {what}: {reason}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path}: cannot be read ({error}); delete {path.parent} and run again"
        ) from error
    return found
