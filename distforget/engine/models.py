"""Brings base models into reach and remembers where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import track


def fetch_model(step: Step, study: Study, store: Store) -> None:
    """Commit a model step: the converted files, or a note of where the files are.

    Raises:
        UsageError: the model cannot be had.
    """

    def fill(folder: Path) -> None:
        found = track(study.track).materialise_model(step.config, folder)
        place = "" if found == folder else str(found)
        size = sum(path.stat().st_size for path in found.glob("*.safetensors"))
        note = {"folder": place, "weight_bytes": size}
        (folder / "model.json").write_text(json.dumps(note))

    store.commit(step, fill)


def model_folder(step: Step, store: Store) -> Path:
    """The folder with a base model's files."""
    folder = store.folder(step.key)
    place = _note(step, store)["folder"]
    return Path(place) if place else folder


def weight_bytes(step: Step, store: Store) -> int:
    """Size of a base model's weight files in bytes."""
    return int(_note(step, store)["weight_bytes"])


def _note(step: Step, store: Store) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((store.folder(step.key) / "model.json").read_text())
    return note
