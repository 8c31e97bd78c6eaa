"""A store in object storage (S3, Google Cloud Storage, Azure), with a folder on each machine.

The bucket is the truth. A result is a blob of its weights, one of its other files, and a pointer to
both, `results/KEY.json`, which is created last and only if there is none: the first one wins. The
folder holds what this machine has made or read, so that each blob is read once a machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PreconditionError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from distforget.attempts import Attempt, DiskError, StoreError
from distforget.errors import UsageError
from distforget.provenance import is_alive, machine
from distforget.store import KeyedStep, Store

SCHEMES = ("s3://", "gs://", "az://")

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

WEIGHTS, OTHERS = "weights", "others"
"""The blobs of a result: its safetensors, and its other files."""


def open_store(place: str | Path) -> Store:
    """The store at a folder or at a URL.

    Raises:
        UsageError: the URL names no bucket.
    """
    if not str(place).startswith(SCHEMES):
        return Store(Path(place).expanduser().resolve())
    url = str(place).rstrip("/")
    _bucket(url)
    base = os.environ.get("DISTFORGET_CACHE") or Path.home() / ".cache/distforget"
    return RemoteStore(Path(base) / hashlib.sha256(url.encode()).hexdigest()[:16], url)


@cache
def _bucket(url: str) -> Any:
    """The client of a process; credentials come from the environment or the instance."""
    make: Any = from_url
    try:
        return make(url, retry_config=RETRYING)
    except (BaseError, InvalidPathError, UnknownConfigurationKeyError, ValueError) as error:
        raise UsageError(f"--store {url}: {_said(error)}") from error


@dataclass(frozen=True)
class RemoteStore(Store):
    """As `Store`; `root` is this machine's folder."""

    url: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Another machine has another folder."""
        return open_store, (self.url,)

    @property
    def place(self) -> str:
        """See `Store.place`."""
        return self.url

    @property
    def _objects(self) -> Any:
        return _bucket(self.url)

    @contextmanager
    def _speaking(self, what: str) -> Iterator[None]:
        """Turn what the storage says into one clear line."""
        try:
            yield
        except (BaseError, PermissionError) as error:
            raise DiskError(f"{self.url}: cannot {what}: {_said(error)}") from error

    def _get(self, path: str) -> bytes | None:
        with self._speaking(f"read {path}"):
            try:
                return bytes(obstore.get(self._objects, path).bytes())
            except FileNotFoundError:
                return None

    def _put(self, path: str, content: bytes, mode: Any = "overwrite") -> Any:
        with self._speaking(f"write {path}"):
            return obstore.put(self._objects, path, content, mode=mode)

    def _upload(self, path: Path, name: str = "") -> None:
        """Write a file, in parts if it is large; its name is that under `root` if none is given."""
        name = name or str(path.relative_to(self.root))
        with self._speaking(f"write {name}"):
            obstore.put(self._objects, name, path, chunk_size=CHUNK)

    def _download(self, name: str, path: Path) -> str:
        """Read an object into a file; returns its sha256."""
        digest = hashlib.sha256()
        with self._speaking(f"read {name}"), path.open("wb") as file:
            for chunk in obstore.get(self._objects, name).stream(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _listed(self, prefix: str) -> list[Any]:
        with self._speaking(f"list {prefix}"):
            return [found for some in obstore.list(self._objects, prefix) for found in some]

    def _delete(self, path: str) -> None:
        with self._speaking(f"delete {path}"), suppress(FileNotFoundError):
            obstore.delete(self._objects, path)

    def check_writable(self) -> None:
        """See `Store`; writes and reads an object too, and forgets results that the bucket lost."""
        super().check_writable()
        probe, content = f"tmp/probe-{uuid.uuid4().hex}", os.urandom(64)
        try:
            self._put(probe, content)
            same = self._get(probe) == content
            self._delete(probe)
        except DiskError as error:
            raise UsageError(f"--store {error}") from error
        if not same:
            raise UsageError(f"--store {self.url}: what was written came back changed")
        there = self._keys()
        for folder in (*self.root.glob("done/*"), *self.root.glob("light/*")):
            if folder.name not in there:
                shutil.rmtree(folder)
                (self.root / "pointers" / f"{folder.name}.json").unlink(missing_ok=True)

    def _keys(self) -> set[str]:
        return {Path(found["path"]).stem for found in self._listed("results/")}

    def _pointer(self, key: str) -> dict[str, Any] | None:
        """What `results/KEY.json` says; it never changes, so it is read once."""
        kept = self._place("pointers", key).with_suffix(".json")
        if not kept.is_file():
            content = self._get(f"results/{key}.json")
            if content is None:
                return None
            self._keep(kept, content)
        found: dict[str, Any] = json.loads(kept.read_bytes())
        return found

    def _keep(self, path: Path, content: bytes) -> None:
        """Put a file into the folder at once; another process may be reading it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        temporary.write_bytes(content)
        temporary.replace(path)

    def is_done(self, key: str) -> bool:
        """See `Store`."""
        return super().is_done(key) or self._pointer(key) is not None

    def done(self, keys: Iterable[str]) -> set[str]:
        """See `Store`; lists the bucket once."""
        return self._keys().intersection(keys)

    def folder(self, key: str, whole: bool = True) -> Path:
        """See `Store`; reads the result's blobs if this machine does not have them.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        if super().is_done(key):
            return super().folder(key)
        pointer = self._pointer(key)
        if pointer is None:
            raise StoreError(f"{self.url}: no result {key[:12]}; run the study first")
        names = [name for name in pointer["blobs"] if whole or name != WEIGHTS]
        place = self._place("done" if len(names) == len(pointer["blobs"]) else "light", key)
        with filelock.FileLock(self._place("fetching", key).with_suffix(".lock")):
            if not place.is_dir():
                self._fetch(key, [pointer["blobs"][name] for name in names], place)
        return place

    def _fetch(self, key: str, blobs: Sequence[dict[str, str]], place: Path) -> None:
        with self.scratch("fetch") as folder:
            for blob in blobs:
                packed = folder / "blob.tar"
                try:
                    digest = self._download(blob["path"], packed)
                except FileNotFoundError:
                    digest = ""
                if digest != blob["sha256"]:
                    raise StoreError(
                        f"{self.url}/{blob['path']}: missing or damaged; delete "
                        f"{self.url}/results/{key}.json and run again"
                    )
                with tarfile.open(packed) as archive:
                    archive.extractall(folder / "result", filter="data")
            place.parent.mkdir(parents=True, exist_ok=True)
            (folder / "result").rename(place)

    def payload(self, key: str) -> dict[str, Any]:
        """See `Store`; of the pointer, which holds it."""
        return self._of_pointer(key, "payload")

    def manifest(self, key: str) -> dict[str, Any]:
        """See `Store`; of the pointer, which holds it."""
        return self._of_pointer(key, "manifest")

    def _of_pointer(self, key: str, part: str) -> dict[str, Any]:
        pointer = self._pointer(key)
        if pointer is None:
            raise StoreError(f"{self.url}: no result {key[:12]}; run the study first")
        found: dict[str, Any] = pointer[part]
        return found

    def _payloads(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in sorted(self._keys()):
            yield key, self.payload(key)

    def _publish(self, temporary: Path, place: Path) -> None:
        """Blobs, checks, pointer; then this machine's folder. Who comes second drops its own."""
        key = place.name
        if self.is_done(key):
            return
        files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
        parts = {
            WEIGHTS: [path for path in files if path.suffix == ".safetensors"],
            OTHERS: [path for path in files if path.suffix != ".safetensors"],
        }
        about = ("payload", "manifest")
        pointer = {
            **{name: json.loads((temporary / f"{name}.json").read_bytes()) for name in about},
            "blobs": {
                name: self._pack(f"blobs/{key}-{uuid.uuid4().hex}.tar", some, temporary)
                for name, some in parts.items()
                if some
            },
        }
        try:
            self._put(f"results/{key}.json", json.dumps(pointer).encode(), "create")
        except DiskError as error:
            if not isinstance(error.__cause__, AlreadyExistsError):
                raise  # the pointer may be there all the same: blobs stay until a `sweep`
            # A request whose answer was lost is sent again, and then finds its own pointer.
            own = [blob["path"] for blob in pointer["blobs"].values()]
            if not self._points_to(key, own[0]):
                for path in own:
                    self._delete(path)
                return
        temporary.rename(place)

    def _pack(self, blob: str, files: Sequence[Path], below: Path) -> dict[str, str]:
        """Write some files as a blob and read it again."""
        with self.scratch("packed") as folder:
            packed = folder / "blob.tar"
            with tarfile.open(packed, "w") as archive:
                for path in files:
                    archive.add(path, str(path.relative_to(below)))
            with packed.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._upload(packed, blob)
            if self._download(blob, folder / "again.tar") != digest:
                raise StoreError(f"{self.url}/{blob}: the storage holds other bytes than it got")
        return {"path": blob, "sha256": digest}

    def _points_to(self, key: str, blob: str) -> bool:
        pointer = self._pointer(key)
        blobs = pointer["blobs"].values() if pointer else ()
        return any(found["path"] == blob for found in blobs)

    @contextmanager
    def claim(
        self, key: str, on_wait: Callable[[], None] | None = None, wait: bool = True
    ) -> Iterator[bool]:
        """See `Store`; an object whose owner gives signs of life while it holds it."""
        claim = _Claim(self, f"claims/{self._place('claims', key).name}.json")
        mine = claim.take()
        if not mine and wait:
            if on_wait is not None:
                on_wait()
            while not claim.take():
                time.sleep(1.0)
            mine = True
        try:
            yield mine
        finally:
            if mine:
                claim.release()

    def record_attempt(self, step: KeyedStep, *arguments: Any, **given: Any) -> None:
        """See `Store`."""
        self._pull(f"attempts/{step.key}")
        super().record_attempt(step, *arguments, **given)
        self._push(f"attempts/{step.key}")

    def attempts(self, key: str) -> list[Attempt]:
        """See `Store`."""
        self._pull(f"attempts/{self._place('attempts', key).name}")
        return super().attempts(key)

    def attempted(self) -> set[str]:
        """See `Store`; lists the bucket once."""
        return {found["path"].split("/")[1] for found in self._listed("attempts/")}

    def work(self, key: str) -> Path:
        """See `Store`; what other machines have kept there is there too."""
        folder = super().work(key)
        self._pull(f"work/{key}")
        return folder

    def keep(self, path: Path) -> None:
        """See `Store`."""
        self._upload(path)

    def kept(self, key: str, name: str) -> bytes:
        """See `Store`."""
        return self._get(f"work/{self._place('work', key).name}/{name}") or b""

    def drop_work(self, key: str) -> None:
        """See `Store`."""
        super().drop_work(key)
        for found in self._listed(f"work/{key}/"):
            self._delete(found["path"])

    def _pull(self, prefix: str) -> None:
        """Read the objects there that the folder has not, or not so new."""
        for found in self._listed(f"{prefix}/"):
            path = self.root / found["path"]
            known = path.stat() if path.is_file() else None
            changed = found["last_modified"].timestamp()
            if known is None or known.st_size != found["size"] or known.st_mtime < changed:
                with self.scratch("pull") as folder, suppress(FileNotFoundError):
                    self._download(found["path"], folder / path.name)
                    os.utime(folder / path.name, (changed, changed))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    (folder / path.name).replace(path)

    def _push(self, prefix: str) -> None:
        """Write the files of a folder that the bucket has not."""
        there = {found["path"] for found in self._listed(f"{prefix}/")}
        for path in (self.root / prefix).rglob("*"):
            name = str(path.relative_to(self.root))
            if path.is_file() and not path.name.startswith(".") and name not in there:
                self._upload(path)

    def share(self, folder: Path) -> None:
        """See `Store`."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self._upload(path)

    def write_study_table(self, study: str, name: str, table: Any) -> None:
        """See `Store`."""
        super().write_study_table(study, name, table)
        self.keep(self.study_table(study, name))

    def read_study_table(self, study: str, name: str) -> Any:
        """See `Store`."""
        path = self.study_table(study, name)
        content = self._get(f"studies/{study}/{name}.parquet")
        if content is not None:
            self._keep(path, content)
        return super().read_study_table(study, name)

    def sweep(self, max_age_seconds: float = 86_400.0) -> None:
        """See `Store`; also blobs of that age without a pointer, and claims as old."""
        super().sweep(max_age_seconds)
        limit = datetime.now(UTC) - timedelta(seconds=max_age_seconds)
        for found in [*self._listed("blobs/"), *self._listed("claims/"), *self._listed("tmp/")]:
            path = found["path"]
            key = Path(path).name.rpartition("-")[0]
            if found["last_modified"] < limit and not (
                path.startswith("blobs/") and self._points_to(key, path)
            ):
                self._delete(path)


class _Claim:
    """An object that says who holds it, written anew while the owner lives."""

    def __init__(self, store: RemoteStore, path: str) -> None:
        self.store, self.path = store, path
        self.owner = uuid.uuid4().hex
        self.version: Any = None
        self.seen: tuple[Any, float] = None, 0.0
        self.released = threading.Event()

    def take(self) -> bool:
        """Take it if nobody has it, or its owner has not been heard of for long."""
        if self._write("create"):
            threading.Thread(target=self._beat, daemon=True).start()
            return True
        found, now = self._look(), time.monotonic()
        if found is None:
            return False  # just let go: the next try may have it
        version, owner = found
        if owner["owner"] == self.owner:  # the answer to the first request was lost
            threading.Thread(target=self._beat, daemon=True).start()
            return True
        if self.seen[0] != version:
            self.seen = version, now
        here = owner["machine"] == machine()
        dead = here and not is_alive(owner["process"])
        if (dead or now - self.seen[1] > STALE) and self._write(version):
            threading.Thread(target=self._beat, daemon=True).start()
            return True
        return False

    def _look(self) -> tuple[dict[str, str], dict[str, Any]] | None:
        with self.store._speaking(f"read {self.path}"):
            try:
                found = obstore.get(self.store._objects, self.path)
            except FileNotFoundError:
                return None
            version = {"e_tag": found.meta["e_tag"], "version": found.meta.get("version")}
            return {k: v for k, v in version.items() if v}, json.loads(bytes(found.bytes()))

    def _write(self, mode: Any) -> bool:
        about = {"owner": self.owner, "machine": machine(), "process": os.getpid()}
        content = json.dumps({**about, "time": time.time()}).encode()
        try:
            self.version = self.store._put(self.path, content, mode)
        except DiskError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True

    def _beat(self) -> None:
        while not self.released.wait(BEAT):
            with suppress(DiskError):
                version = {k: v for k, v in self.version.items() if v}
                if not self._write(version):
                    return  # it was taken over: this process was away for too long

    def release(self) -> None:
        """Let go of it."""
        self.released.set()
        found = self._look()
        if found is not None and found[1]["owner"] == self.owner:
            self.store._delete(self.path)


def _said(error: Exception) -> str:
    """The first line of what the storage said, without what is told for debugging."""
    return str(error).split("\n\nDebug source")[0].splitlines()[0]
