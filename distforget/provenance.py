"""Records what a result depends on beside its payload, and whether its process is still alive."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

FACTS = ("device", "threads", "python", "versions", "commit", "host")
"""Fields of a manifest on which its result may depend beside its payload."""
PACKAGES = ("distforget", "torch", "ray", "transformers", "deepspeed", "pyarrow")


@cache
def facts() -> dict[str, Any]:
    """What results may depend on beside their payload: commit, Python, packages, host."""
    versions = dict.fromkeys(PACKAGES, "not installed")
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "host": socket.gethostname(),
    }


def recorded(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a result, as its manifest holds them; None where it does not."""
    return {name: manifest.get(name) for name in FACTS}


def _commit() -> str | None:
    """The checkout's commit, with '-dirty' if files differ; None for an installed package."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(
            [*command, "--exclude=*"], text=True, stderr=subprocess.DEVNULL, timeout=10
        ).strip()
    return None


@cache
def machine() -> str:
    """A name for where process ids are valid: containers may share a host's name."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:12]


def is_alive(process: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True
