"""Durable writes, locks and error messages for the store's file system."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock

from distforget.errors import UsageError

FULL_OR_READ_ONLY = {
    errno.ENOSPC: "the disk is full; free some space, then run again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run again",
    errno.EFBIG: "a file is larger than allowed; raise the limit (ulimit -f), then run again",
    errno.EROFS: "the file system is read-only; give another --store",
}
NOT_FIT = FULL_OR_READ_ONLY | {
    errno.EACCES: "permission denied; give another --store",
    errno.EPERM: "not permitted; give another --store",
    errno.EEXIST: "it is a file; give a folder",
    errno.ENOTDIR: "a part of the path is a file; give a folder",
}
"""Error codes that concern the store only if they name one of its paths."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def reason(error: Exception, root: Path) -> str | None:
    """Explains why `root` cannot be written, with a fix; None if the error has another cause.

    A full or read-only disk is recognised whichever library has wrapped the error.
    """
    number = getattr(error, "errno", None)
    if number in NOT_FIT and str(getattr(error, "filename", "")).startswith(str(root)):
        return NOT_FIT[number]
    for known, said in FULL_OR_READ_ONLY.items():
        if number == known or os.strerror(known) in str(error):
            return said
    return None


def write(path: Path, content: bytes) -> None:
    """Write a file and make it durable."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_at_once(place: Path, content: bytes) -> None:
    """Write a file: a temporary one, fsync, rename.

    Raises:
        UsageError: it cannot be written.
    """
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write(temporary, content)
        temporary.replace(place)
        sync_folder(place.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UsageError(f"{place}: cannot write: {error.strerror or error}") from error


def write_lines(place: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines, all at once.

    Raises:
        UsageError: it cannot be written.
    """
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_at_once(place, "".join(lines).encode())


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def acquire(lock: filelock.BaseFileLock, on_wait: Callable[[], None] | None, wait: bool) -> bool:
    """Take a lock; True where the storage has no locks.

    Args:
        on_wait: called once, before waiting for another holder.
        wait: False: return False if another process holds it.
    """
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if not wait:
                return False
            if on_wait is not None:
                on_wait()
            lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Make all files durable, then write the manifest that names them."""
    paths = sorted(folder.rglob("*"))
    files = [path for path in paths if path.is_file()]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in paths:
        if path.is_dir():
            sync_folder(path)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    content = {**about, "files": sizes, "time": time.time()}
    write(folder / "manifest.json", json.dumps(content, indent=1).encode())
    sync_folder(folder)
