"""Where and how a study runs; no field takes part in content keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from distforget.frozen import Frozen


def _as_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


class Placement(Frozen):
    """Where and how a study runs. No field changes a result beyond floating-point noise."""

    store: Annotated[Path, BeforeValidator(_as_path)] = Path("results")
    address: str = Field("", description="Ray cluster address; empty: start Ray on this machine")
    cpus: int = Field(0, ge=0, description="CPU cores to use here; 0: all")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    train_workers: int = Field(1, ge=1, description="Ray Train workers of one fine-tuning run")
    train_groups: int = Field(
        0, ge=0, description="fine-tuning runs at once; 0: by GPUs, or one for each four cores"
    )
    stepper: Literal["torch", "deepspeed"] = "torch"
    zero_stage: Literal[1, 2, 3] = 2
    offload: bool = Field(False, description="DeepSpeed: optimiser state on the CPU")
    gradient_checkpointing: bool = False
    cell_workers: int = Field(0, ge=0, description="cells at once; 0: one a core or GPU share")
    cells_per_batch: int = Field(8, ge=1, description="cells of adapters that share a batch")
    cells_per_device: int = Field(
        0, ge=0, description="cells that share one GPU; 0: as many as its free memory holds"
    )
    retries: int = Field(2, ge=0, description="new tries after lost workers or out of memory")
    retry_failed: bool = False
    tolerated_failures: int = Field(0, ge=0, description="failed cells that still exit with 0")
    stop_if_first_fail: int = Field(8, ge=1, description="stop early if the first n cells all fail")
    checkpoint_seconds: float = Field(60.0, ge=0, description="least time between checkpoints")
    cells_per_tuner: int = Field(10_000, ge=1, description="Tune's driver grows with each, slowly")
