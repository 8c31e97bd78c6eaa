"""A store in a bucket keeps the promises of one in a folder, whatever happens to its requests."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distforget import bucket, remote, schemas
from distforget.attempts import DiskError, StoreError
from distforget.errors import UsageError
from distforget.provenance import machine
from distforget.remote import RemoteStore, open_store
from distforget.store import Store
from tests.buckets import FAULTS, KEY_ID, SECRET, Bucket, serving


@dataclass(frozen=True)
class Step:
    key: str = "a" * 64
    payload: str = '{"stage": "cell", "version": 1}'
    stage: str = "cell"
    title: str = "cell m/1/GA/1/0"


STEP = Step()


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with serving() as (served, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield served


@pytest.fixture
def machines(
    server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], RemoteStore]]:
    """Stores of several machines on one bucket, each with a folder of its own."""
    url = f"s3://bucket/{abs(hash(request.node.name))}"
    quick = {"max_retries": 6, "backoff": bucket.RETRYING["backoff"]}
    monkeypatch.setattr(bucket, "RETRYING", quick)

    def of(name: str) -> RemoteStore:
        return RemoteStore(tmp_path / name, url)

    yield of
    server.fault = lambda *_: ""


def filling(text: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner/table.txt").write_text(text)

    return fill


def said(store: Store, key: str = STEP.key) -> str:
    return (store.folder(key) / "inner/table.txt").read_text()


def objects(store: RemoteStore, prefix: str) -> list[str]:
    return [found["path"] for found in store._bucket.listed(prefix)]


def test_a_result_is_read_on_another_machine(machines: Callable[[str], RemoteStore]) -> None:
    one, other = machines("one"), machines("other")
    assert not other.is_done(STEP.key)
    one.check_writable()
    one.commit(STEP, filling("mine"), seconds=2.5)
    assert said(one) == said(other) == "mine"
    assert other.done([STEP.key, "b" * 64]) == {STEP.key}
    assert other.payload(STEP.key) == json.loads(STEP.payload)
    assert other.manifest(STEP.key) == one.manifest(STEP.key)
    assert other.manifest(STEP.key)["seconds"] == 2.5
    assert len(objects(one, "blobs/")) == len(objects(one, "results/")) == 1


def test_facts_are_read_without_the_blob(
    machines: Callable[[str], RemoteStore], server: Bucket
) -> None:
    machines("one").commit(STEP, filling("mine"))
    other, asked = machines("other"), []
    server.fault = lambda number, method, path: asked.append(path) or ""  # type: ignore[func-returns-value]
    assert other.is_done(STEP.key)
    assert other.manifest(STEP.key)["title"] == STEP.title
    assert len(asked) == 1
    said(other)
    said(other)
    assert len([path for path in asked if "blobs" in path]) == 1


def test_the_first_result_stays(machines: Callable[[str], RemoteStore]) -> None:
    one, other = machines("one"), machines("other")

    def late(folder: Path) -> None:
        one.commit(STEP, filling("first"))
        filling("second")(folder)

    other.commit(STEP, late)
    assert said(one) == said(other) == "first"
    assert len(objects(one, "blobs/")) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_any_request_may_fail_once(
    machines: Callable[[str], RemoteStore], server: Bucket, fault: str
) -> None:
    for number in range(12):
        step = Step(f"{number:064d}")
        first = server.requests + number
        server.fault = lambda now, method, path, first=first: fault if now == first else ""  # type: ignore[misc]
        store = machines(f"{number}")
        with store.claim(step.key, wait=False) as mine:
            assert mine
            store.commit(step, filling("text"))
            store.record_attempt(step, "lost", error_class="E")
        assert said(machines(f"again {number}"), step.key) == "text"
        assert len(store.attempts(step.key)) == 1
        for kind in ("results/", "blobs/"):
            assert sum(step.key in path for path in objects(store, kind)) == 1, (kind, number)
        assert objects(store, "claims/") == []


def test_a_storage_that_is_down_ends_with_one_line_and_no_secret(
    machines: Callable[[str], RemoteStore], server: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"max_retries": 1, "backoff": bucket.RETRYING["backoff"]}
    monkeypatch.setattr(bucket, "RETRYING", quick)
    bucket._client.cache_clear()
    server.fault = lambda *_: "500"
    store = machines("one")
    for failing in (store.check_writable, lambda: store.commit(STEP, filling("mine"))):
        with pytest.raises((UsageError, DiskError)) as caught:
            failing()
        text = str(caught.value)
        assert text.count("\n") == 0
        assert "s3://bucket" in text
        assert SECRET not in text
        assert KEY_ID not in text


def test_bytes_that_change_on_the_way_are_seen(
    machines: Callable[[str], RemoteStore], server: Bucket
) -> None:
    store = machines("one")
    server.fault = lambda number, method, path: (
        "changed" if method == "PUT" and "/blobs/" in path else ""
    )
    with pytest.raises(StoreError, match="other bytes"):
        store.commit(STEP, filling("mine"))
    assert not store.is_done(STEP.key)


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_a_damaged_blob_is_named(machines: Callable[[str], RemoteStore], damage: str) -> None:
    store = machines("one")
    store.commit(STEP, filling("mine"))
    (blob,) = objects(store, "blobs/")
    if damage == "deleted":
        store._bucket.delete(blob)
    else:
        store._bucket.put(blob, b"something else")
    with pytest.raises(StoreError, match=r"missing or damaged; delete .*results"):
        said(machines("other"))


def test_what_the_bucket_lost_is_forgotten(machines: Callable[[str], RemoteStore]) -> None:
    store, other = machines("one"), machines("other")
    store.commit(STEP, filling("mine"))
    assert other.manifest(STEP.key)
    store._bucket.delete(f"results/{STEP.key}.json")
    for one in (store, other):
        one.check_writable()
        assert not one.is_done(STEP.key)


@pytest.mark.parametrize("name", ["..", "a b", "-x", "%2e%2e"])
def test_objects_with_strange_names_become_no_files(name: str) -> None:
    with pytest.raises(StoreError, match="no name"):
        remote.checked(name)


def test_a_claim_is_one_owners(machines: Callable[[str], RemoteStore]) -> None:
    one, other = machines("one"), machines("other")
    with one.claim(STEP.key) as mine, other.claim(STEP.key, wait=False) as others:
        assert (mine, others) == (True, False)
    with other.claim(STEP.key, wait=False) as others:
        assert others


def test_a_claim_is_waited_for(machines: Callable[[str], RemoteStore]) -> None:
    one, other = machines("one"), machines("other")
    waits = threading.Event()

    def hold() -> None:
        with one.claim(STEP.key):
            held.set()
            waits.wait(30)

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    with other.claim(STEP.key, waits.set) as mine:
        assert mine
        assert waits.is_set()
    thread.join()


def left_behind(store: RemoteStore, machine: str, process: int) -> None:
    about = {"owner": "somebody", "machine": machine, "process": process, "time": 0}
    store._bucket.put(f"claims/{STEP.key}.json", json.dumps(about).encode())


def test_a_claim_of_a_dead_process_is_taken_over(machines: Callable[[str], RemoteStore]) -> None:
    store = machines("one")
    left_behind(store, machine(), 2**22 + 1)
    with store.claim(STEP.key, wait=False) as mine:
        assert mine
    left_behind(store, machine(), os.getpid())
    with store.claim(STEP.key, wait=False) as mine:
        assert not mine


def test_a_claim_without_a_sign_of_life_is_taken_over(
    machines: Callable[[str], RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "STALE", 2.0)
    store = machines("one")
    left_behind(store, "another machine", 1)
    with store.claim(STEP.key) as mine:
        assert mine


def test_an_owner_that_lives_keeps_its_claim(
    machines: Callable[[str], RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "BEAT", 0.2)
    one, other = machines("one"), machines("other")
    with one.claim(STEP.key):
        claim = bucket.Claim(other._bucket, f"claims/{STEP.key}.json")
        first, _ = claim._look() or ({}, {})
        threading.Event().wait(1.0)
        later, _ = claim._look() or ({}, {})
    assert first != later


def test_an_owner_whose_answers_are_lost_keeps_its_claim(
    machines: Callable[[str], RemoteStore], server: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "BEAT", 0.2)
    lost: set[int] = set()

    def fault(number: int, method: str, path: str) -> str:
        cut = method == "PUT" and number - 1 not in lost
        lost.update([number] if cut else [])
        return "cut after" if cut else ""

    one, other = machines("one"), machines("other")
    server.fault = fault
    with one.claim(STEP.key) as mine:
        assert mine
        claim = bucket.Claim(other._bucket, f"claims/{STEP.key}.json")
        seen = set()
        for _ in range(4):
            threading.Event().wait(1.0)
            found = claim._look()
            assert found is not None
            seen.add(str(found[0]))
    assert len(seen) >= 3
    assert lost


def test_tables_and_checkpoints_are_seen_elsewhere(
    machines: Callable[[str], RemoteStore],
) -> None:
    one, other = machines("one"), machines("other")
    table = schemas.empty("cells")
    one.write_study_table("mine", "cells", table)
    assert other.read_study_table("mine", "cells").equals(table)
    checkpoint = one.work(STEP.key) / "checkpoint"
    for content in (b"early", b"later, and longer"):
        checkpoint.write_bytes(content)
        one.keep(checkpoint)
        assert other.kept(STEP.key, "checkpoint") == content
        assert (other.work(STEP.key) / "checkpoint").read_bytes() == content
    one.drop_work(STEP.key)
    assert other.kept(STEP.key, "checkpoint") == b""


def test_blobs_that_nothing_points_to_are_swept(machines: Callable[[str], RemoteStore]) -> None:
    store = machines("one")
    store.commit(STEP, filling("mine"))
    store._bucket.put(f"blobs/{'b' * 64}-0.tar", b"left by a process that was killed")
    store.sweep(max_age_seconds=3600)
    assert len(objects(store, "blobs/")) == 2
    store.sweep(max_age_seconds=-3600)
    assert said(machines("other")) == "mine"
    assert len(objects(store, "blobs/")) == 1


def test_a_store_that_is_sent_elsewhere_finds_its_folder_there(
    server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTFORGET_CACHE", str(tmp_path / "one"))
    sent = pickle.dumps(open_store("s3://bucket/sent/"))
    assert SECRET.encode() not in sent
    monkeypatch.setenv("DISTFORGET_CACHE", str(tmp_path / "two"))
    found = pickle.loads(sent)
    assert found.place == "s3://bucket/sent"
    assert found.root.is_relative_to(tmp_path / "two")


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://bucket with spaces"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--store"):
        open_store(url).check_writable()


def test_weights_are_read_when_they_are_needed(machines: Callable[[str], RemoteStore]) -> None:
    def fill(folder: Path) -> None:
        filling("mine")(folder)
        (folder / "weights.safetensors").write_bytes(b"large")

    machines("one").commit(STEP, fill)
    other = machines("other")
    light = other.folder(STEP.key, whole=False)
    assert (light / "inner/table.txt").read_text() == "mine"
    assert not list(light.rglob("*.safetensors"))
    assert (other.folder(STEP.key) / "weights.safetensors").read_bytes() == b"large"
    assert said(other) == "mine"


@pytest.mark.parametrize("name", ["../outside", "/outside", "link"])
def test_a_blob_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "blob.tar"
    with tarfile.open(packed, "w") as archive:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(member, io.BytesIO())
    with pytest.raises(StoreError, match="no file of a result"):
        remote._unpack(packed, tmp_path / "inner/result")
    assert not (tmp_path / "inner/outside").exists()
