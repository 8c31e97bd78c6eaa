"""Puts rows into the batches of optimiser steps, and these into micro-batches of each worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distforget.study import FinetuneConfig
from distforget.tracks.base import Examples


@dataclass(frozen=True)
class MicroBatch:
    """Rows that one worker computes at once; fillers, which keep workers in step, weigh 0."""

    rows: tuple[int, ...]
    weight: float
    """1 / answer tokens of the global batch, so that shares add up to the mean over them."""


def global_batches(
    examples: Examples, batch_size: int, draw: np.random.Generator, left_out: Sequence[int] = ()
) -> list[np.ndarray]:
    """The rows of each step: samples of similar size together, to save padding, in random order.

    The rows `left_out` are taken out of their batches; all else is as it would be with them.
    """
    shuffled = draw.permutation(len(examples.sizes))
    by_size = shuffled[np.argsort(examples.sizes[shuffled], kind="stable")]
    batches = [by_size[i : i + batch_size] for i in range(0, len(by_size), batch_size)]
    ordered = [batches[i] for i in draw.permutation(len(batches))]
    kept = [batch[~np.isin(batch, left_out)] for batch in ordered]
    return [batch for batch in kept if len(batch)]


def micro_batches(
    batch: np.ndarray, examples: Examples, size: int, count: int, rank: int, world: int
) -> list[MicroBatch]:
    """This worker's part of a global batch, as exactly `count` micro-batches."""
    weight = 1.0 / int(examples.answer_sizes[batch].sum())
    own = [int(i) for i in batch[rank::world]]
    parts = [tuple(own[i : i + size]) for i in range(0, len(own), size)]
    filled = [MicroBatch(part, weight) for part in parts]
    return filled + [MicroBatch((int(batch[0]),), 0.0)] * (count - len(filled))


def micro_batch_count(config: FinetuneConfig, world: int) -> int:
    """Number of micro-batches of each worker in a step (gradient accumulation steps)."""
    rows = math.ceil(config.batch_size / world)
    return math.ceil(rows / min(config.micro_batch_size, rows))
