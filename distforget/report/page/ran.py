"""What ran: settings, versions, devices, time of each stage, failures."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import pyarrow as pa

from distforget.plan import Plan
from distforget.report.progress import duration
from distforget.store import Store


def what_ran(plan: Plan, store: Store, cells: pa.Table) -> dict[str, Any]:
    """The study's fields, time per stage, versions, hosts, and cells that failed."""
    there = store.done(step.key for step in plan.steps())
    manifests = {step.key: store.manifest(step.key) for step in plan.steps() if step.key in there}
    stages, places = [], dict[tuple[str, ...], int]()
    for stage in dict.fromkeys(step.stage for step in plan.steps()):
        steps = [step for step in plan.steps() if step.stage == stage]
        made = [manifests[step.key] for step in steps if step.key in manifests]
        seconds = [float(m["seconds"]) for m in made if "seconds" in m]
        total = duration(sum(seconds)) if seconds else ""
        each = duration(median(seconds)) if seconds else ""
        devices = ", ".join(sorted({str(m["device"]) for m in made if "device" in m}))
        stages.append([stage, f"{len(made)} of {len(steps)}", total, each, devices])
        for manifest in made:
            place = _place(manifest)
            places[place] = places.get(place, 0) + 1
    rows = cells.to_pylist()
    names = ("cell", "state", "error_class", "error_message", "error_traceback", "attempts")
    return {
        "study": _fields(plan.study.model_dump(mode="json")),
        "stages": stages,
        "places": [[*place, count] for place, count in places.items()],
        "failed": [{name: row[name] for name in names} for row in rows if row["state"] != "done"],
        "diverged": [row["cell"] for row in rows if row["diverged"]],
        "skipped": [
            f"{row['cell']} ({row['skipped_steps']} of {row['steps']})"
            for row in rows
            if row["skipped_steps"]
        ],
        "planned": len(plan.cells),
        "done": sum(row["state"] == "done" for row in rows),
    }


def _place(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Commit, host, Python and packages that computed a result."""
    versions = ", ".join(f"{name} {v}" for name, v in manifest.get("versions", {}).items())
    commit = str(manifest.get("commit") or "installed package")
    return commit, str(manifest.get("host", "")), f"Python {manifest.get('python')}, {versions}"


def _fields(value: Any, name: str = "") -> list[list[str]]:
    """A study's fields as [path, value], without those that are null or empty."""
    if isinstance(value, Mapping):
        return [row for key, v in value.items() for row in _fields(v, f"{name}.{key}".strip("."))]
    if isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        return [row for i, v in enumerate(value, 1) for row in _fields(v, f"{name}.{i}")]
    if value in (None, "", []):
        return []
    if isinstance(value, list):
        value = ", ".join(" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in value)
    return [[name, str(value)]]
