"""Fetches base models and records where their files are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import track

_WIDTH = {"float32": 4, "bfloat16": 2}
"""Bytes of a number."""


def fetch_model(step: Step, study: Study, store: Store) -> None:
    """Commit a model step: the converted files, or a note of where the files are.

    Raises:
        UsageError: the model cannot be had.
    """

    def fill(folder: Path) -> None:
        base = model_folder(step.inputs["base"], store) if "base" in step.inputs else None
        found = track(study.track).materialise_model(step.config, folder, base)
        place = "" if found == folder else str(found)
        note = {"folder": place, "weights": sum(map(_weights, found.glob("*.safetensors")))}
        (folder / "model.json").write_text(json.dumps(note))

    store.commit(step, fill)


def model_folder(step: Step, store: Store) -> Path:
    """The folder with a base model's files."""
    place = _note(step, store)["folder"]
    return Path(place) if place else store.folder(step.key)


def weight_bytes(step: Step, study: Study, store: Store) -> int:
    """Memory of a model's weights; 0 for classifiers, which are small."""
    return int(_note(step, store)["weights"]) * _WIDTH[study.dtype]


def worker_bytes(step: Step, study: Study, store: Store) -> int:
    """Memory that a worker needs for training or unlearning, without activations.

    Weights, gradients and AdamW's two moments; of 16-bit weights the last two in float32, and
    float32 weights too (`training.TorchStepper`). Of adapters little more than the base model.
    """
    weights = int(_note(step, store)["weights"])
    if study.adapter:
        return weights * _WIDTH[study.dtype]
    return weights * (16 if study.dtype == "float32" else 20)


def _weights(path: Path) -> int:
    """Number of weights in a safetensors file, read from its header."""
    with safe_open(path, "numpy") as file:
        names = file.keys()
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _note(step: Step, store: Store) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(
        (store.folder(step.key, whole=False) / "model.json").read_text()
    )
    return note
