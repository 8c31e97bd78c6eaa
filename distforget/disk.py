"""Durable writes, locks and error messages for the store's file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import filelock

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
