"""A store in object storage (S3, Google Cloud Storage, Azure), with a folder on each machine.

The bucket is the truth. A result is a blob of its weights, one of its other files, and a pointer to
both, `results/KEY.json`, which is created last and only if there is none: the first one wins. The
folder holds what this machine has made or read, so that each blob is read once a machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
from obstore.exceptions import AlreadyExistsError

from distforget.attempts import Attempt, DiskError, StoreError
from distforget.bucket import Bucket, Claim
from distforget.errors import UsageError
from distforget.payload import KeyedStep
from distforget.store import Store

SCHEMES = ("s3://", "gs://", "az://")

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
    Bucket(url)
    base = os.environ.get("DISTFORGET_CACHE") or Path.home() / ".cache/distforget"
    return RemoteStore(Path(base) / hashlib.sha256(url.encode()).hexdigest()[:16], url)


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
    def _bucket(self) -> Bucket:
        return Bucket(self.url)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def check_writable(self) -> None:
        """See `Store`; writes and reads an object too, and forgets results that the bucket lost."""
        super().check_writable()
        probe, content = f"tmp/probe-{uuid.uuid4().hex}", os.urandom(64)
        try:
            self._bucket.put(probe, content)
            same = self._bucket.get(probe) == content
            self._bucket.delete(probe)
        except DiskError as error:
            raise UsageError(f"--store {error}") from error
        if not same:
            raise UsageError(f"--store {self.url}: what was written came back changed")
        there = self._keys()
        for kept in self.root.glob("pointers/*.json"):
            if kept.stem not in there:
                for folder in ("done", "light"):
                    shutil.rmtree(self.root / folder / kept.stem, ignore_errors=True)
                kept.unlink()

    def _keys(self) -> set[str]:
        return {Path(found["path"]).stem for found in self._bucket.listed("results/")}

    def _pointer(self, key: str) -> dict[str, Any] | None:
        """What `results/KEY.json` says; it never changes, so it is read once."""
        kept = self._place("pointers", key).with_suffix(".json")
        if not kept.is_file():
            content = self._bucket.get(f"results/{key}.json")
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
                    digest = self._bucket.download(blob["path"], packed)
                except FileNotFoundError:
                    digest = ""
                if digest != blob["sha256"]:
                    raise StoreError(
                        f"{self.url}/{blob['path']}: missing or damaged; delete "
                        f"{self.url}/results/{key}.json and run again"
                    )
                _unpack(packed, folder / "result")
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
            content = json.dumps(pointer).encode()
            self._bucket.put(f"results/{key}.json", content, "create")
            self._keep(self._place("pointers", key).with_suffix(".json"), content)
        except DiskError as error:
            if not isinstance(error.__cause__, AlreadyExistsError):
                raise  # the pointer may be there all the same: blobs stay until a `sweep`
            # A request whose answer was lost is sent again, and then finds its own pointer.
            own = [blob["path"] for blob in pointer["blobs"].values()]
            if not self._points_to(key, own[0]):
                for path in own:
                    self._bucket.delete(path)
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
            self._bucket.upload(packed, blob)
            if self._bucket.download(blob, folder / "again.tar") != digest:
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
        claim = Claim(self._bucket, f"claims/{self._place('claims', key).name}.json")
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
        self.share(self._place("attempts", step.key))

    def attempts(self, key: str) -> list[Attempt]:
        """See `Store`."""
        self._pull(f"attempts/{self._place('attempts', key).name}")
        return super().attempts(key)

    def attempted(self) -> set[str]:
        """See `Store`; lists the bucket once."""
        return {found["path"].split("/")[1] for found in self._bucket.listed("attempts/")}

    def work(self, key: str) -> Path:
        """See `Store`; what other machines have kept there is there too."""
        folder = super().work(key)
        self._pull(f"work/{key}")
        return folder

    def keep(self, path: Path) -> None:
        """See `Store`."""
        self._bucket.upload(path, self._name(path))

    def kept(self, key: str, name: str) -> bytes:
        """See `Store`."""
        return self._bucket.get(f"work/{self._place('work', key).name}/{name}") or b""

    def drop_work(self, key: str) -> None:
        """See `Store`."""
        super().drop_work(key)
        for found in self._bucket.listed(f"work/{key}/"):
            self._bucket.delete(found["path"])

    def _pull(self, prefix: str) -> None:
        """Read the objects there that the folder has not, or not so new."""
        for found in self._bucket.listed(f"{prefix}/"):
            path = self.root / prefix / checked(Path(found["path"]).name)
            known = path.stat() if path.is_file() else None
            changed = found["last_modified"].timestamp()
            if known is None or known.st_size != found["size"] or known.st_mtime < changed:
                with self.scratch("pull") as folder, suppress(FileNotFoundError):
                    self._bucket.download(found["path"], folder / path.name)
                    os.utime(folder / path.name, (changed, changed))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    (folder / path.name).replace(path)

    def share(self, folder: Path) -> None:
        """See `Store`."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self._bucket.upload(path, self._name(path))

    def write_study_table(self, study: str, name: str, table: Any) -> None:
        """See `Store`."""
        super().write_study_table(study, name, table)
        self.keep(self.study_table(study, name))

    def read_study_table(self, study: str, name: str) -> Any:
        """See `Store`."""
        path = self.study_table(study, name)
        path.unlink(missing_ok=True)  # it may have been written anew elsewhere
        self.there(path)
        return super().read_study_table(study, name)

    def there(self, path: Path) -> bool:
        """See `Store`."""
        if not path.is_file():
            content = self._bucket.get(self._name(path))
            if content is None:
                return False
            self._keep(path, content)
        return True

    def sweep(self, max_age_seconds: float = 86_400.0) -> None:
        """See `Store`; also blobs of that age without a pointer, and claims as old."""
        super().sweep(max_age_seconds)
        limit = datetime.now(UTC) - timedelta(seconds=max_age_seconds)
        kinds = ("blobs/", "claims/", "tmp/")
        for found in (found for kind in kinds for found in self._bucket.listed(kind)):
            path = found["path"]
            key = Path(path).name.rpartition("-")[0]
            if found["last_modified"] < limit and not (
                path.startswith("blobs/") and self._points_to(key, path)
            ):
                self._bucket.delete(path)


def _unpack(packed: Path, to: Path) -> None:
    """Write a blob's files, which are plain ones below the folder."""
    with tarfile.open(packed) as archive:
        for member in archive:
            path = (to / member.name).resolve()
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or not path.is_relative_to(to.resolve()):
                raise StoreError(f"{member.name!r} in a blob is no file of a result; delete it")
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)


def checked(name: str) -> str:
    """The name of an object, which becomes that of a file.

    Raises:
        StoreError: it could name a file elsewhere.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StoreError(f"object {name!r}: no name that is written here; delete it")
    return name
