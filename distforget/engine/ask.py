"""Asks a stored cell anything: the answers of its three phases, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import load_file

from distforget import cell
from distforget.engine.worker import ADAPTER, Device, State, Worker, is_retrained, tuned_state
from distforget.plan import Plan, Step, cell_name
from distforget.store import Store
from distforget.study import UsageError


def ask(
    plan: Plan, name: str, asked: pa.Table, store: Store, device: str
) -> Iterator[tuple[str, str]]:
    """Phase and answer, as they come: before fine-tuning, before and after unlearning.

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
        (said,), _ = worker.learner.ask(asked)
        return said

    dataset, model = step.inputs["dataset"], step.inputs["model"]
    worker.take(State(dataset, model, model.key, None))
    cell.put_back(worker.learner, worker.start)
    yield "pre_finetune", answer()
    worker.take(tuned_state(plan.before(step)[1], store))
    cell.put_back(worker.learner, worker.start)
    yield "pre_unlearn", answer()
    worker.take(tuned_state(step, store))
    _unlearn(worker, step, store.folder(step.key) / ADAPTER)
    yield "post_unlearn", answer()


def _unlearn(worker: Worker, step: Step, adapter: Path) -> None:
    if worker.learner.slots is not None and not is_retrained(step):
        worker.learner.slots.load([load_file(adapter / "adapter_model.safetensors")])
    else:
        retain = worker.retain_batches([step])
        cell.unlearn(worker.learner, worker.start, worker.samples, worker.what(step), retain)
