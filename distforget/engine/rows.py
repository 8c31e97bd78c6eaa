"""Puts the results of steps into the tables of their folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from distforget import schemas
from distforget.attacks import UNATTACKED
from distforget.engine import weights
from distforget.engine.states import WEIGHTS
from distforget.plan import Step
from distforget.study import Study
from distforget.training import Epoch


def trained(
    step: Step, found: Mapping[str, torch.Tensor], history: Sequence[Epoch]
) -> Callable[[Path], None]:
    """Fills a finetune step's folder: `weights.safetensors` and `training.parquet`."""
    names = ("model", "dose", "seed", "without", "nearest")
    about = {**{name: step.about.get(name) for name in names}, "key": step.key}
    table = schemas.from_rows("training", [{**about, **asdict(epoch)} for epoch in history])

    def fill(folder: Path) -> None:
        weights.save(found, folder / WEIGHTS)
        schemas.write(table, "training", folder / "training.parquet")

    return fill


def identity(step: Step, study: Study) -> dict[str, Any]:
    """The columns that say whose a row is, as in `answers`, `scores` and `cells`."""
    return {
        "track": study.track,
        "dataset": study.data.name,
        "phase": step.about.get("phase", "post_unlearn"),
        **{
            name: step.about.get(name)
            for name in ("model", "dose", "seed", "method", "variant", "unlearned")
        },
        "attack": step.about.get("attack", UNATTACKED),
    }


def cell_identity(step: Step, study: Study) -> dict[str, Any]:
    """The same for `cells`, which has neither a phase nor an attack."""
    about = identity(step, study)
    return {name: value for name, value in about.items() if name not in ("phase", "attack")}


def write(
    tables: Mapping[str, pa.Table], folder: Path, kept: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write tables and, if there are any, weights."""
    for name, table in tables.items():
        schemas.write(table, name, folder / f"{name}.parquet")
    if kept:
        weights.save(kept, folder / WEIGHTS)
