"""Where and how a study runs. No field takes part in content keys."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from distforget.frozen import Frozen


def _as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class Placement(Frozen):
    """Where and how a study runs. No field changes a result beyond floating-point noise.

    The options of `distforget run` are made from these fields.
    """

    store: Annotated[str, BeforeValidator(_as_text)] = Field(
        "results",
        description="folder of results, on a cluster one that all nodes share; or a bucket: "
        "s3://BUCKET/PREFIX (gs://, az://)",
    )
    address: str = Field("", description="address of a Ray cluster; empty: this machine")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run: auto, cpu or cuda"
    )
    cpus: int = Field(0, ge=0, description="CPU cores to use on this machine; 0: all")
    train_workers: int = Field(1, ge=1, description="Ray Train workers of each fine-tuning")
    train_tokens: int = Field(
        0,
        ge=0,
        description="tokens of a forward pass in fine-tuning, padding included; 0: 8192 on a CPU, "
        "on a GPU as many as its memory holds",
    )
    train_groups: int = Field(
        0,
        ge=0,
        description="fine-tunings that run at once; 0: as the GPUs allow, or one per four cores",
    )
    stepper: Literal["torch", "deepspeed"] = Field(
        "torch", description="what takes the optimiser steps: torch or deepspeed"
    )
    zero_stage: Literal[1, 2, 3] = Field(2, description="ZeRO stage of DeepSpeed: 1, 2 or 3")
    offload: bool = Field(False, description="DeepSpeed keeps the optimiser state on the CPU")
    gradient_checkpointing: bool = Field(
        False, description="saves memory at the cost of one more forward pass per step"
    )
    cell_workers: int = Field(
        0, ge=0, description="cells that run at once; 0: one for each core or share of a GPU"
    )
    workers_per_cell: int = Field(
        0,
        ge=0,
        description="workers that compute one cell: they share its memory with --stepper "
        "deepspeed, and its questions; 0: as many as memory asks for",
    )
    cells_per_batch: int = Field(8, ge=1, description="cells of LoRA adapters that share a batch")
    cells_per_device: int = Field(
        0, ge=0, description="cells that share one GPU; 0: as many as its free memory holds"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="shortest time between two checkpoints of a fine-tuning"
    )
    retries: int = Field(
        2,
        ge=0,
        description="how often a step is tried again after it lost its worker or ran out of memory",
    )
    retry_failed: bool = Field(False, description="runs failed cells again")
    tolerated_failures: int = Field(
        0, ge=0, description="number of failed cells up to which the command still exits with 0"
    )
    stop_if_first_fail: int = Field(
        8, ge=1, description="stop the run if the first cells, this many, all fail"
    )
    cells_per_tuner: int = Field(
        10_000, ge=1, description="cells in one run of Ray Tune, whose driver slows down with more"
    )
