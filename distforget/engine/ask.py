"""Asks a stored cell any question, in its three phases, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import torch

from distforget import cell
from distforget.engine.states import Device, tuned_state
from distforget.engine.worker import Worker
from distforget.errors import UsageError
from distforget.plan import Plan, cell_name
from distforget.store import Store


def ask(
    plan: Plan, name: str, asked: pa.Table, store: Store, device: str
) -> Iterator[tuple[str, str]]:
    """Yields each phase with its answer: before fine-tuning, before and after unlearning.

    A cell of adapters is loaded; one of whole weights, which are not stored, is unlearned again.

    Args:
        name: as in column `cell` of table `cells`.
        asked: one row of what the track's learner asks; for text, column `question`.
        device: cpu or cuda.

    Raises:
        UsageError: no such cell, or what it starts from is not computed yet.
    """
    step = plan.cell(name)
    if not store.is_done(step.key):
        raise UsageError(f"cell {cell_name(step)} is not done; run the study first")
    worker = Worker(plan.study, store, Device(device, torch.get_num_threads()))

    def answer() -> str:
        (said,) = worker.learner.evidence(asked).answers()
        return said

    floor = plan.floor(step)
    if floor:
        worker.take(tuned_state(floor, store))
        cell.put_back(worker.learner, worker.start)
        yield "pre_finetune", answer()
    worker.take(tuned_state(plan.before(step), store))
    cell.put_back(worker.learner, worker.start)
    yield "pre_unlearn", answer()
    worker.take(tuned_state(step, store))
    worker.reach(step)
    yield "post_unlearn", answer()
