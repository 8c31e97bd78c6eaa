"""The tracks by name; each offers what `tracks.base` describes."""

from __future__ import annotations

import importlib
from types import ModuleType

TRACKS = {"text": "distforget.tracks.text", "image": "distforget.tracks.image"}


def track(name: str) -> ModuleType:
    """The track's package, imported on first use."""
    return importlib.import_module(TRACKS[name])
