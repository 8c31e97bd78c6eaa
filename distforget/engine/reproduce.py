"""Runs a done cell again in a clean store, from what the cell started from, without a cluster."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from distforget import schemas
from distforget.engine.worker import Device, Worker, tuned_state
from distforget.payload import differences
from distforget.plan import STAGE_VERSIONS, Plan, Step, cell_name
from distforget.provenance import recorded
from distforget.store import Store, StoreError
from distforget.study import UsageError


@dataclass(frozen=True)
class Result:
    """What a cell left, and where and how fast it was computed."""

    tables: Mapping[str, pa.Table]
    facts: Mapping[str, Any]
    """As `provenance.recorded` gives them, and seconds."""


def reproduce(plan: Plan, name: str, store: Store, device: str) -> tuple[Result, Result]:
    """A cell's stored result, and the one that it leaves when it is run again.

    It runs in an empty store that is gone afterwards and holds nothing but the cell's inputs as
    they are stored: dataset, base model, fine-tuned weights (of retrain: those trained without the
    target), reference, and the answers before unlearning. Of the stored result nothing but the
    payload and the number of threads is read before the new one is there.

    Args:
        name: as in column `cell` of table `cells`.
        device: cpu or cuda.

    Raises:
        UsageError: no such cell, it is not done, or this code or the study is not the one that
            the stored result came from.
        StoreError: an input is gone or damaged, or the cell fails.
    """
    step = plan.cell(name)
    if not store.is_done(step.key):
        raise UsageError(f"cell {name} {_why_not_done(step, plan, store)}")
    _check_payload(step, store)
    with tempfile.TemporaryDirectory(prefix="distforget-") as folder:
        clean = Store(Path(folder))
        asked = plan.before(step)[1]
        _give(clean, store, [*step.inputs.values(), *[asked] * store.is_done(asked.key)])
        # Sums over other numbers of threads differ in their last digits, and attacks amplify that.
        threads = store.manifest(step.key)["threads"]
        worker = Worker(plan.study, clean, Device(device, threads))
        outcome = worker.run(tuned_state(step, clean, asked), step)
        if not outcome.done:
            raise StoreError(f"cell {name} failed when it was run again: {outcome.error}")
        new = _result(step, clean)
    return _result(step, store), new


def _give(clean: Store, store: Store, steps: list[Step]) -> None:
    """Let a store have some results of another one."""
    (clean.root / "done").mkdir()
    for step in steps:
        place = store.folder(step.key).resolve()
        (clean.root / "done" / step.key).symlink_to(place, target_is_directory=True)


def _result(step: Step, store: Store) -> Result:
    files = sorted(store.folder(step.key).glob("*.parquet"))
    manifest = store.manifest(step.key)
    return Result(
        {path.stem: schemas.read(path, path.stem) for path in files},
        {**recorded(manifest), "seconds": manifest["seconds"]},
    )


def _check_payload(step: Step, store: Store) -> None:
    path = store.folder(step.key) / "payload.json"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != step.key:
        raise StoreError(f"{path}: not what the result's key says; delete {path.parent}, run again")


def _why_not_done(step: Step, plan: Plan, store: Store) -> str:
    """What the study's tables hold under the cell's name, if its present key is not done."""
    key = _tabled_key(step, plan, store)
    if key is None or not store.is_done(key):
        return "is not done; run the study first"
    payload = store.payload(key)
    for what, version, now in _versions(payload, step, store):
        if version != now:
            commit = store.manifest(key).get("commit")
            there = f"check out commit {commit}" if commit else "install the version that made it"
            return (
                f"was computed by version {version} of {what}, and this code has version {now}, "
                f"whose results may differ; to reproduce it {there}; for a result of this code run "
                "the study again"
            )
    found = [d for d in _differences(payload, step, store) if ".inputs." not in d[0]]
    shown = "; ".join(f"{field}: {there!r}, now {here!r}" for field, there, here in found)
    return (
        f"was computed under other settings ({shown or 'of a step that it builds on'}); give the "
        "study as it was, or run it again"
    )


def _tabled_key(step: Step, plan: Plan, store: Store) -> str | None:
    """Key of the cell of this name in the study's table `cells`, whatever its settings were."""
    try:
        cells = store.read_study_table(plan.study.name, "cells").select(["cell", "key"])
    except UsageError:
        return None
    keys = dict(zip(*(column.to_pylist() for column in cells.columns), strict=True))
    return keys.get(cell_name(step))


def _versions(
    payload: Mapping[str, Any], step: Step, store: Store
) -> Iterator[tuple[str, int, int]]:
    """Of a stored step and all that it builds on: stage, version then, version of this code."""
    stage = payload["stage"]
    yield f"stage {stage}", payload["version"], STAGE_VERSIONS[stage]
    then, now = payload["config"], step.config
    if stage == "cell" and then["family"] == now["family"]:
        yield f"method {then['family']}", then["version"], now["version"]
    for name, key in payload["inputs"].items():
        if store.is_done(key) and name in step.inputs:
            yield from _versions(store.payload(key), step.inputs[name], store)


def _differences(
    payload: Mapping[str, Any], step: Step, store: Store
) -> Iterator[tuple[str, object, object]]:
    """Fields that differ of a stored step and of all that it builds on."""
    for field, there, here in differences(payload, json.loads(step.payload)):
        yield f"{step.stage}.{field.removeprefix('config.')}", there, here
    for name, key in payload["inputs"].items():
        if store.is_done(key) and name in step.inputs:
            yield from _differences(store.payload(key), step.inputs[name], store)
