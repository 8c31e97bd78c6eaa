"""The store: a result is there as a whole or not at all, whoever is killed, and when."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from distforget import schemas
from distforget.attempts import DiskError, MissingTableError, StoreError
from distforget.errors import UsageError
from distforget.schemas import SchemaError
from distforget.store import Store, facts

spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class SomeStep:
    """A step that is nothing but its payload."""

    payload: str = '{"config":{"rate":0.1},"stage":"cell"}'
    stage: str = "cell"
    title: str = "cell a/b"

    @property
    def key(self) -> str:
        return hashlib.sha256(self.payload.encode()).hexdigest()


STEP = SomeStep()


def numbered(number: int) -> SomeStep:
    return SomeStep(json.dumps({"config": {"rate": number}, "stage": "cell"}))


def fill(folder: Path) -> None:
    (folder / "answers.txt").write_text("an answer")
    (folder / "samples").mkdir()
    (folder / "samples" / "0.txt").write_text("a sample")


def assert_whole(folder: Path) -> None:
    """The files are those of the manifest, with their sizes; and it is the payload's result."""
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    del found["manifest.json"]
    assert found == manifest["files"]
    assert hashlib.sha256((folder / "payload.json").read_bytes()).hexdigest() == folder.name


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < limit, f"{path} did not appear"
        time.sleep(0.01)


def start(target: Any, *args: Any) -> BaseProcess:
    process = spawn.Process(target=target, args=args)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


# --- processes of their own ---


def commit_with_another(root: Path, name: str, other: str) -> None:
    def slow(folder: Path) -> None:
        fill(folder)
        (folder / "who.txt").write_text(name * 10_000)
        (root / name).touch()
        wait_for(root / other)

    place = Store(root).commit(STEP, slow)
    assert place.is_dir()


def stop_in_commit(root: Path) -> None:
    def endless(folder: Path) -> None:
        fill(folder)
        (root / "filling").touch()
        time.sleep(60)

    Store(root).commit(STEP, endless)


def commit_many(root: Path) -> None:
    for number in range(100_000):
        Store(root).commit(numbered(number), fill)


# --- one process ---


def test_a_result_is_there_with_its_payload_and_facts(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "root")
    assert not store.is_done(STEP.key)
    place = store.commit(STEP, fill, device="cpu", seconds=1.5)
    assert store.is_done(STEP.key)
    assert store.folder(STEP.key) == place == store.root / "done" / STEP.key
    assert_whole(place)
    assert store.payload(STEP.key) == {"stage": "cell", "config": {"rate": 0.1}}
    manifest = store.manifest(STEP.key)
    assert (manifest["device"], manifest["seconds"], manifest["stage"]) == ("cpu", 1.5, "cell")
    assert manifest["title"] == "cell a/b"
    assert manifest["versions"]["pyarrow"]
    assert set(manifest["files"]) == {"answers.txt", "samples/0.txt", "payload.json"}
    assert list((store.root / "tmp").iterdir()) == []


def test_of_many_results_those_are_done_that_are_there_and_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    keys = [numbered(number).key for number in range(4)]
    assert store.done(keys) == set()
    for number in (1, 2, 3):
        store.commit(numbered(number), fill)
    (store.folder(keys[2]) / "manifest.json").unlink()
    assert store.done(keys[:3]) == {keys[1]}


def test_facts_name_python_host_and_packages() -> None:
    found = facts()
    assert set(found) == {"commit", "python", "versions", "host"}
    assert set(found["versions"]) >= {"distforget", "torch", "ray", "transformers", "deepspeed"}
    json.dumps(found)


def test_nothing_is_written_before_the_first_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    assert not store.is_done(STEP.key)
    assert store.attempts(STEP.key) == []
    assert store.nearest(STEP) is None
    store.sweep()
    store.drop_work(STEP.key)
    assert not store.root.exists()


def test_no_result_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no result {STEP.key[:12]}; run the study first"):
        Store(tmp_path).folder(STEP.key)


def test_the_first_result_wins(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(STEP, fill, seconds=1.0)
    store.commit(STEP, lambda folder: _write_bytes(folder / "other", 2), seconds=2.0)
    assert store.manifest(STEP.key)["seconds"] == 1.0
    assert_whole(store.folder(STEP.key))


def test_an_error_in_fill_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        Store(tmp_path).commit(STEP, fails)
    assert not Store(tmp_path).is_done(STEP.key)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_result_without_manifest_is_not_taken_for_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.commit(STEP, fill) / "manifest.json").unlink()
    assert not store.is_done(STEP.key)
    with pytest.raises(StoreError, match=r"a result without manifest.json; delete it"):
        store.commit(STEP, fill)


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", ".hidden", "a\n"])
def test_a_key_never_leaves_its_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match="is no key"):
        Store(tmp_path).work(key)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.commit(STEP, fill) / "manifest.json"
    path.write_text("{")
    with pytest.raises(StoreError, match=f"{path}: cannot be read .*delete {path.parent}"):
        store.manifest(STEP.key)


@pytest.mark.parametrize("error", [StoreError("what, where"), MissingTableError("what, where")])
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == "what, where"


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    def on_a_full_device(folder: Path) -> None:
        Path("/dev/full").write_bytes(b"no space for this")

    with pytest.raises(StoreError) as caught:
        Store(tmp_path).commit(STEP, on_a_full_device)
    said = str(caught.value)
    assert said == (
        f"{tmp_path}: cannot write the result of 'cell a/b': the disk is full; free some space, "
        "then run again"
    )
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_seen_through_the_errors_of_other_libraries(tmp_path: Path) -> None:
    def wraps(folder: Path) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match="the disk is full"):
        Store(tmp_path).commit(STEP, wraps)


@contextmanager
def small_files() -> Iterator[None]:
    """Files of this process end at 1000 bytes, its own output too: for no longer than needed."""
    facts()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_in_full_leaves_no_result(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a file is larger than allowed"), small_files():
        Store(tmp_path).commit(STEP, lambda folder: _write_bytes(folder / "big", 5000))
    assert not Store(tmp_path).is_done(STEP.key)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_study_table_that_cannot_be_written_in_full_leaves_nothing(tmp_path: Path) -> None:
    message = "cannot write table 'scores' of study 'demo': a file is"
    with pytest.raises(StoreError, match=message), small_files():
        Store(tmp_path).write_study_table("demo", "scores", schemas.empty("scores"))
    assert list((tmp_path / "studies" / "demo").iterdir()) == []


def _write_bytes(path: Path, count: int) -> None:
    path.write_bytes(bytes(count))


def test_writable_root_is_left_clean(tmp_path: Path) -> None:
    Store(tmp_path / "root").check_writable()
    assert list((tmp_path / "root").rglob("*")) == [tmp_path / "root" / "tmp"]


@pytest.mark.parametrize(
    ("below", "said"), [("", "it is a file"), ("root", "a part of the path is a file")]
)
def test_a_file_for_a_root_is_a_usage_error(tmp_path: Path, below: str, said: str) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match=f"--store {file / below}: cannot write there: {said}"):
        Store(file / below).check_writable()


def test_a_root_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    # /proc refuses new files to every user, root included.
    with pytest.raises(UsageError, match=r"--store /proc/self/store: cannot write there: \w+"):
        Store(Path("/proc/self/store")).check_writable()


def test_attempts_are_kept_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(12):
        store.record_attempt(
            STEP, "failed", error_class="ValueError", error_message=str(number), seconds=number
        )
    store.record_attempt(STEP, "blocked", error_class="Blocked", error_message="\udcff")
    found = store.attempts(STEP.key)
    assert [a.error_message for a in found] == [*map(str, range(12)), "?"]
    assert [a.state for a in found] == ["failed"] * 12 + ["blocked"]
    assert found[3].seconds == 3
    assert found[3].host
    store.commit(STEP, fill)
    assert len(store.attempts(STEP.key)) == 13


def test_a_damaged_attempt_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record_attempt(STEP, "failed", error_class="ValueError")
    (path,) = (tmp_path / "attempts" / STEP.key).iterdir()
    path.write_text("[]")
    with pytest.raises(StoreError, match=f"{path}: not an attempt"):
        store.attempts(STEP.key)


def test_nearest_says_which_field_differs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (1, 2):
        store.commit(numbered(number), fill)
    far = SomeStep('{"config":{"rate":1,"more":3},"stage":"cell"}')
    near = store.nearest(far)
    assert near == (numbered(1).key, [("config.more", None, 3)])


def test_study_tables_are_replaced_and_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.study_table("demo", "scores") == tmp_path / "studies" / "demo" / "scores.parquet"
    store.write_study_table("demo", "scores", schemas.empty("scores"))
    store.write_study_table("demo", "scores", schemas.empty("scores"))
    assert store.read_study_table("demo", "scores").equals(schemas.empty("scores"))
    assert os.listdir(tmp_path / "studies" / "demo") == ["scores.parquet"]


@pytest.mark.parametrize("study", ["", "..", "a/b", ".a", "a\n", "x" * 65])
def test_a_study_name_never_leaves_the_store(tmp_path: Path, study: str) -> None:
    with pytest.raises(UsageError, match="names are letters"):
        Store(tmp_path).study_table(study, "scores")


def test_a_study_that_was_not_run_says_what_to_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_study_table("demo", "scores", schemas.empty("scores"))
    with pytest.raises(StoreError, match=r"run `distforget run dem` first; .*store: demo"):
        store.read_study_table("dem", "scores")


def test_an_unknown_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no table 'passwd'"):
        Store(tmp_path).read_study_table("demo", "passwd")


# --- two processes, and kills ---


def test_two_processes_with_the_same_step_leave_one_whole_result(tmp_path: Path) -> None:
    pair = [start(commit_with_another, tmp_path, a, b) for a, b in (("a", "b"), ("b", "a"))]
    for process in pair:
        process.join()
        assert process.exitcode == 0
    place = Store(tmp_path).folder(STEP.key)
    assert_whole(place)
    assert (place / "who.txt").read_text() in ("a" * 10_000, "b" * 10_000)
    assert os.listdir(tmp_path / "done") == [STEP.key]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_kill_within_a_commit_leaves_no_result_and_the_step_can_be_done_again(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    process = start(stop_in_commit, tmp_path)
    wait_for(tmp_path / "filling")
    store.sweep(0)
    assert len(list((tmp_path / "tmp").iterdir())) == 1, "a living process' folder is left alone"
    kill(process)
    assert not store.is_done(STEP.key)
    assert_whole(store.commit(STEP, fill))
    store.sweep()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_kills_at_any_time_leave_only_whole_results(tmp_path: Path) -> None:
    process = start(commit_many, tmp_path)
    wait_for(tmp_path / "done" / numbered(3).key)
    time.sleep(0.2137)
    kill(process)
    results = list((tmp_path / "done").iterdir())
    assert len(results) >= 4
    for folder in results:
        assert_whole(folder)


def commit_without_permission(root: Path) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)  # the superuser may write anywhere
    with pytest.raises(DiskError, match="permission denied; give another --store"):
        Store(root).commit(STEP, fill)
    (root.parent / "refused").touch()


def test_a_store_whose_permissions_were_taken_away_is_no_fault_of_the_step() -> None:
    # Not pytest's tmp_path: no other user may look into it.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        root = Path(folder) / "store"
        root.mkdir(mode=0o555)
        process = start(commit_without_permission, root)
        process.join()
        assert process.exitcode == 0
        assert (Path(folder) / "refused").exists()
