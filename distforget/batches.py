"""Puts rows into the batches of optimiser steps, and these into micro-batches of each worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    batch: np.ndarray, examples: Examples, most_tokens: int, rank: int, world: int
) -> list[MicroBatch]:
    """This worker's part of a global batch; each worker gets as many micro-batches.

    Args:
        most_tokens: of a micro-batch, padding included; one row may have more.
    """
    weight = 1.0 / int(examples.answer_sizes[batch].sum())
    parts = [_filled(batch[each::world], examples.sizes, most_tokens) for each in range(world)]
    missing = max(map(len, parts)) - len(parts[rank])
    own = [MicroBatch(rows, weight) for rows in parts[rank]]
    return own + [MicroBatch((int(batch[0]),), 0.0)] * missing


def _filled(rows: np.ndarray, sizes: np.ndarray, most_tokens: int) -> list[tuple[int, ...]]:
    """The rows in groups, each as long as its padded tokens are no more than these."""
    groups: list[list[int]] = []
    longest = 0
    for row in rows.tolist():
        longest = max(longest, int(sizes[row]))
        if not groups or longest * (len(groups[-1]) + 1) > most_tokens:
            groups.append([])
            longest = int(sizes[row])
        groups[-1].append(row)
    return [tuple(group) for group in groups]
