"""Runs a finished cell again in an empty store, from the same inputs, without a cluster."""

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
from distforget.attempts import StoreError
from distforget.engine.states import Device, scored_state, tuned_state
from distforget.engine.worker import Worker
from distforget.errors import UsageError
from distforget.payload import differences
from distforget.plan import STAGE_VERSIONS, Plan, Step, cell_name
from distforget.provenance import recorded
from distforget.store import Store


@dataclass(frozen=True)
class Result:
    """The tables of a cell, and where and how fast they were computed."""

    tables: Mapping[str, pa.Table]
    facts: Mapping[str, Any]
    """As `provenance.recorded` gives them, and seconds."""


def reproduce(plan: Plan, name: str, store: Store, device: str) -> tuple[Result, Result]:
    """Returns a cell's stored result and the result of running it again.

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
        asked = plan.before(step)
        _give(clean, store, [*step.inputs.values(), *[asked] * store.is_done(asked.key)])
        # Sums over other numbers of threads differ in their last digits, and attacks amplify that.
        threads = store.manifest(step.key)["threads"]
        worker = Worker(plan.study, clean, Device(device, threads))
        outcome = worker.run(tuned_state(step, clean, asked), step)
        if not outcome.done:
            raise StoreError(f"cell {name} failed when it was run again: {outcome.error}")
        probes = [probe for probe in plan.probes if probe.inputs["state"] is step]
        for probe in probes:
            worker.run(scored_state(probe, clean), probe)
        new = _result(step, probes, clean)
    return _result(step, probes, store), new


def _give(clean: Store, store: Store, steps: list[Step]) -> None:
    """Link results of one store into another."""
    (clean.root / "done").mkdir()
    for step in steps:
        place = store.folder(step.key).resolve()
        (clean.root / "done" / step.key).symlink_to(place, target_is_directory=True)


def _result(step: Step, probes: list[Step], store: Store) -> Result:
    found: dict[str, list[pa.Table]] = {}
    for each in [step, *(probe for probe in probes if store.is_done(probe.key))]:
        for path in sorted(store.folder(each.key).glob("*.parquet")):
            found.setdefault(path.stem, []).append(schemas.read(path, path.stem))
    manifest = store.manifest(step.key)
    return Result(
        {name: pa.concat_tables(tables) for name, tables in found.items()},
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
