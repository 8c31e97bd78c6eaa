"""Objects in a bucket (S3, Google Cloud Storage, Azure), and claims on work held there."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PreconditionError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from distforget.attempts import DiskError
from distforget.errors import UsageError
from distforget.provenance import is_alive, machine

BEAT = 20.0
"""Seconds between two signs of life of a claim's owner."""

STALE = 90.0
"""Seconds without a sign of life after which a claim is taken over."""

RETRYING = {
    "max_retries": 12,
    "retry_timeout": timedelta(minutes=5),
    "backoff": {
        "base": 2,
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=20),
    },
}
"""Of requests that got an error of the server, a slow-down or no answer."""

CHUNK = 8 * 2**20
"""Bytes of a part of a large object."""


@cache
def _client(url: str) -> Any:
    """The client of a process; credentials come from the environment or the instance."""
    make: Any = from_url
    try:
        return make(url, retry_config=RETRYING)
    except (BaseError, InvalidPathError, UnknownConfigurationKeyError, ValueError) as error:
        raise UsageError(f"--store {url}: {_said(error)}") from error


class Bucket:
    """The objects below a URL. Errors are a DiskError of one line, without credentials."""

    def __init__(self, url: str) -> None:
        """Raises UsageError if the URL names no bucket."""
        self.url = url
        self.objects = _client(url)

    @contextmanager
    def speaking(self, what: str) -> Iterator[None]:
        """Turn what the storage says into one clear line."""
        try:
            yield
        except (BaseError, PermissionError) as error:
            raise DiskError(f"{self.url}: cannot {what}: {_said(error)}") from error

    def get(self, path: str) -> bytes | None:
        """An object's bytes; None if there is none."""
        with self.speaking(f"read {path}"):
            try:
                return bytes(obstore.get(self.objects, path).bytes())
            except FileNotFoundError:
                return None

    def put(self, path: str, content: bytes, mode: Any = "overwrite") -> Any:
        """Write an object; returns its version, for a later put instead of that one.

        Args:
            mode: "overwrite", "create" (only if there is none) or a version to be replaced.
        """
        with self.speaking(f"write {path}"):
            return obstore.put(self.objects, path, content, mode=mode)

    def upload(self, path: Path, name: str) -> None:
        """Write a file, in parts if it is large."""
        with self.speaking(f"write {name}"):
            obstore.put(self.objects, name, path, chunk_size=CHUNK)

    def download(self, name: str, path: Path) -> str:
        """Read an object into a file; returns its sha256."""
        digest = hashlib.sha256()
        with self.speaking(f"read {name}"), path.open("wb") as file:
            for chunk in obstore.get(self.objects, name).stream(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def listed(self, prefix: str) -> list[Any]:
        """The objects under a folder: path, size, last_modified."""
        with self.speaking(f"list {prefix}"):
            return [found for some in obstore.list(self.objects, prefix) for found in some]

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        with self.speaking(f"delete {path}"), suppress(FileNotFoundError):
            obstore.delete(self.objects, path)


class Claim:
    """An object that says who holds it, written anew while the owner lives."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self.bucket, self.path = bucket, path
        self.owner = uuid.uuid4().hex
        self.version: dict[str, str] = {}
        self.seen: tuple[Any, float] = None, 0.0
        self.released = threading.Event()

    def take(self) -> bool:
        """Take it if nobody has it, or its owner has not been heard of for long."""
        mine = self._write("create") or self._is_mine() or self._took_over()
        if mine:
            threading.Thread(target=self._beat, daemon=True).start()
        return mine

    def _is_mine(self) -> bool:
        """Whether a write was done although its answer was lost: sent again, it was refused."""
        found = self._look()
        if found is None or found[1]["owner"] != self.owner:
            return False
        self.version = found[0]
        return True

    def _took_over(self) -> bool:
        found, now = self._look(), time.monotonic()
        if found is None:
            return False  # just let go: the next try may have it
        version, owner = found
        if self.seen[0] != version:
            self.seen = version, now
        here = owner["machine"] == machine()
        dead = here and not is_alive(owner["process"])
        return (dead or now - self.seen[1] > STALE) and self._write(version)

    def _look(self) -> tuple[dict[str, str], dict[str, Any]] | None:
        with self.bucket.speaking(f"read {self.path}"):
            try:
                found = obstore.get(self.bucket.objects, self.path)
            except FileNotFoundError:
                return None
            return _version(found.meta), json.loads(bytes(found.bytes()))

    def _write(self, mode: Any) -> bool:
        about = {"owner": self.owner, "machine": machine(), "process": os.getpid()}
        content = json.dumps({**about, "time": time.time()}).encode()
        try:
            self.version = _version(self.bucket.put(self.path, content, mode))
        except DiskError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True

    def _beat(self) -> None:
        while not self.released.wait(BEAT):
            with suppress(DiskError):
                if not (self._write(self.version) or self._is_mine()):
                    return  # it was taken over: this process was away for too long

    def release(self) -> None:
        """Let go of it."""
        self.released.set()
        if self._is_mine():
            self.bucket.delete(self.path)


def _version(meta: Any) -> dict[str, str]:
    """What names a version of an object, for a later put instead of it."""
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _said(error: Exception) -> str:
    """The first line of what the storage said, without what is told for debugging."""
    return str(error).split("\n\nDebug source")[0].splitlines()[0]
