"""Claims, and what dead processes leave behind: held by one at a time, and swept away."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import filelock
import pytest

from distforget import disk
from distforget.store import Store
from tests.unit.test_store import STEP, fill, kill, start, wait_for


def hold(root: Path) -> None:
    with Store(root).claim(STEP.key):
        (root / "held").touch()
        time.sleep(60)


def take_and_note(root: Path) -> None:
    with Store(root).claim(STEP.key, (root / "waiting").touch):
        (root / "taken").touch()


def test_a_claim_excludes_others_until_its_holder_is_killed(tmp_path: Path) -> None:
    holder = start(hold, tmp_path)
    wait_for(tmp_path / "held")
    other = start(take_and_note, tmp_path)
    wait_for(tmp_path / "waiting")
    time.sleep(0.2)
    assert not (tmp_path / "taken").exists()
    kill(holder)
    other.join(10)
    assert other.exitcode == 0
    assert (tmp_path / "taken").exists()


def test_a_claim_that_is_free_is_had_without_waiting(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        with store.claim(STEP.key, lambda: pytest.fail("nobody holds it")):
            pass


def test_a_claim_that_is_not_to_be_waited_for_is_refused_while_held(tmp_path: Path) -> None:
    holder = start(hold, tmp_path)
    wait_for(tmp_path / "held")
    with Store(tmp_path).claim(STEP.key, wait=False) as mine:
        assert not mine
    kill(holder)
    with Store(tmp_path).claim(STEP.key, wait=False) as mine:
        assert mine


def test_a_claim_leaves_no_file_and_a_dead_process_claim_is_swept(tmp_path: Path) -> None:
    with Store(tmp_path).claim(STEP.key):
        assert len(list((tmp_path / "claims").iterdir())) == 1
    assert list((tmp_path / "claims").iterdir()) == []
    holder = start(hold, tmp_path)
    wait_for(tmp_path / "held")
    Store(tmp_path).sweep()
    assert len(list((tmp_path / "claims").iterdir())) == 1, "a living process' claim stays"
    kill(holder)
    Store(tmp_path).sweep()
    assert list((tmp_path / "claims").iterdir()) == []


def claim_many(root: Path, name: str) -> None:
    store = Store(root)
    for _ in range(200):
        with store.claim(STEP.key):
            with (root / "inside").open("x"):  # an error if another one is inside
                pass
            (root / "inside").unlink()
    (root / name).touch()


def test_claims_exclude_each_other_although_their_file_comes_and_goes(tmp_path: Path) -> None:
    processes = [start(claim_many, tmp_path, name) for name in ("a", "b", "c")]
    for process in processes:
        process.join()
        assert process.exitcode == 0


class LockWithoutStorage(filelock.FileLock):
    """A lock on storage that has none, such as some network file systems."""

    def _acquire(self) -> None:
        raise OSError(errno.ENOLCK, "No locks available", self.lock_file)


def test_storage_without_locks_gives_every_claim(tmp_path: Path) -> None:
    lock = LockWithoutStorage(tmp_path / "a.lock")
    assert disk.acquire(lock, lambda: pytest.fail("nobody holds it"), wait=True)
    assert not lock.is_locked


def test_checkpoints_of_a_result_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.work(STEP.key) / "checkpoint").touch()
    store.commit(STEP, fill)
    store.sweep()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_folder_of_another_machine_is_as_old_as_its_newest_file(tmp_path: Path) -> None:
    folder = tmp_path / "tmp" / f"{STEP.key[:16]}-othermachine-1-abc"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "0.parquet").touch()
    for path in (folder / "samples", folder):
        os.utime(path, (0, 0))
    Store(tmp_path).sweep(60)
    assert folder.exists()


def die_with_scratch(root: Path) -> None:
    with Store(root).scratch("table") as folder:
        (folder / "half").touch()
        (root / "filling").touch()
        time.sleep(60)


def test_a_scratch_folder_goes_with_its_process(tmp_path: Path) -> None:
    with Store(tmp_path).scratch("tune") as folder:
        (folder / "state").touch()
    process = start(die_with_scratch, tmp_path)
    wait_for(tmp_path / "filling")
    kill(process)
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    Store(tmp_path).sweep()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_leftovers_of_other_machines_go_when_they_are_old(tmp_path: Path) -> None:
    folder = tmp_path / "tmp" / f"{STEP.key[:16]}-othermachine-1-abc"
    folder.mkdir(parents=True)
    Store(tmp_path).sweep(60)
    assert folder.exists()
    os.utime(folder, (0, 0))
    Store(tmp_path).sweep(60)
    assert not folder.exists()


def test_work_stays_until_it_is_dropped(tmp_path: Path) -> None:
    (Store(tmp_path).work(STEP.key) / "checkpoint").touch()
    Store(tmp_path).sweep(0)
    assert (Store(tmp_path).work(STEP.key) / "checkpoint").exists()
    Store(tmp_path).drop_work(STEP.key)
    assert list(Store(tmp_path).work(STEP.key).iterdir()) == []
