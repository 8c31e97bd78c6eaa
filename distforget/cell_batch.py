"""Runs several cells of one model state in a shared batch; the caller decides which cells.

Cells are slots of small weights (adapters) on one model. Their rows share the forward and backward
passes; loss, clipping, optimiser, learning rate and number of steps are each cell's own, so that a
cell's outcome is that of :mod:`distforget.cell` alone up to floating-point noise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from distforget import cell as single
from distforget.cell import Cell, Unlearned
from distforget.steppers import ALONE, Team, TorchStepper, own_part
from distforget.tracks.base import Learner, RetainBatches, Slots
from distforget.training import StepReport


def unlearn(
    learner: Learner,
    start: Mapping[str, Any],
    samples: pa.Table,
    cells: Sequence[Cell],
    retain: RetainBatches | None,
    team: Team = ALONE,
) -> list[Unlearned]:
    """Unlearn each cell's target from the slot weights `start` (theta_0); slot i is then cell i's.

    A cell that diverges stops and leaves the others as they are. An error is that of all of them.
    Seconds are each cell's equal part.

    Args:
        cells: of the model, dose and repetition that `start` and `retain` belong to. One that
            unlearns several targets in turn must be alone.
        retain: needed if any cell's method has a regulariser; its reference is that of `start`.

    Raises:
        ValueError: the learner's model has no slots.
    """
    began = time.monotonic()
    slots = _slots(learner)
    reports: list[list[StepReport]] = [[] for _ in cells]
    reached: list[Mapping[str, Any]] = [start] * len(cells)
    for turn in [[one] for one in cells[0].in_turn()] if len(cells) == 1 else [cells]:
        slots.load(reached)
        taken = _steps(learner, slots, samples, turn, retain, team)
        for mine, more in zip(reports, taken, strict=True):
            mine += more
        reached = [
            _finished(slots, slot, before, cell)
            for slot, (before, cell) in enumerate(zip(reached, turn, strict=True))
        ]
    slots.load(reached)
    seconds = (time.monotonic() - began) / len(cells)
    return [
        single.unlearned(mine, weights.values(), seconds)
        for mine, weights in zip(reports, reached, strict=True)
    ]


def _finished(
    slots: Slots, slot: int, before: Mapping[str, Any], cell: Cell
) -> Mapping[str, Tensor]:
    """A slot's weights after the method's last operation, if it has one."""
    weights = slots.weights(slot)
    if cell.method.method.finish is None:
        return weights
    return cell.method.method.finish(*slots.in_one_basis(before, weights), cell.method.config)


def _steps(
    learner: Learner,
    slots: Slots,
    samples: pa.Table,
    cells: Sequence[Cell],
    retain: RetainBatches | None,
    team: Team,
) -> list[list[StepReport]]:
    """Take all steps of all cells and return each cell's reports.

    Adapters are small: each worker of a team trains whole ones.
    """
    forget = [single.forget_rows(learner, samples, cell) for cell in cells]
    ends = [0, *accumulate(len(rows) for rows in forget)]
    mine = [range(*bounds) for bounds in pairwise(ends)]
    preferring = [i for i, cell in enumerate(cells) if cell.method.method.prefers]
    preferred = [single.preferred_rows(learner, samples, forget[i], cells[i]) for i in preferring]
    preferred_to = [row for i in preferring for row in mine[i]]
    terms_of = learner.terms_of_cells(
        learner.encode(pa.concat_tables([*forget, *preferred])),
        mine,
        retain,
        [i for i, cell in enumerate(cells) if cell.method.retains],
        [cell.noise for cell in cells],
        {row: place for place, row in enumerate(preferred_to, ends[-1])},
    )
    parameters = {i: slots.parameters(i) for i in range(len(cells))}
    steppers = [
        TorchStepper(parameters[i], 0.0, cell.method.config.gradient_clip, team.rank, team.world)
        for i, cell in enumerate(cells)
    ]
    salient = [i for i, cell in enumerate(cells) if cell.method.method.trains is not None]
    if salient:
        ranked = terms_of(0, salient)
        torch.autograd.backward(
            [cells[i].method.saliency(mine) for i, mine in zip(salient, ranked, strict=True)]
        )
        slots.take_gradients({i: parameters[i] for i in salient})
        for i in salient:
            method = cells[i].method
            assert method.method.trains is not None
            steppers[i].train_only(method.method.trains(method.config))
    reports: list[list[StepReport]] = [[] for _ in cells]
    running = list(range(len(cells)))
    for step in range(max(cell.method.config.steps for cell in cells)):
        running = [i for i in running if step < cells[i].method.config.steps]
        if not running:
            break
        terms = terms_of(step, running)
        losses = [
            cells[i].method.loss(mine) / team.world for i, mine in zip(running, terms, strict=True)
        ]
        # A row depends on its own slot alone, so the gradients of the sum are those of the cells.
        torch.autograd.backward(losses)
        slots.take_gradients({i: parameters[i] for i in running})
        taken = [
            steppers[i].step(cells[i].method.config.learning_rate, loss.detach())
            for i, loss in zip(running, losses, strict=True)
        ]
        for i, step_of_cell in zip(running, torch.stack(taken).tolist(), strict=True):
            previous = reports[i][-1] if reports[i] else None
            reports[i].append(StepReport.of(step_of_cell, previous))
        running = [i for i in running if not reports[i][-1].diverged]
    return reports


def ask(
    learner: Learner,
    asked: Sequence[pa.Table],
    identities: Sequence[Mapping[str, Any]],
    drafts: Mapping[int, str] | None = None,
) -> list[pa.Table]:
    """Table `answers` of each slot, as :func:`distforget.cell.ask` of one model.

    Args:
        asked: rows of `samples` that slot i is asked.
    """
    ends = [0, *accumulate(len(rows) for rows in asked)]
    slot_of_row = [slot for slot, rows in enumerate(asked) for _ in range(len(rows))]
    every = pa.concat_tables(asked)
    evidence = learner.evidence(every, slot_of_row, single.drafts_of(every, drafts))
    return [
        single.answers(evidence, range(low, high), identity)
        for (low, high), identity in zip(pairwise(ends), identities, strict=True)
    ]


def run(
    learner: Learner,
    start: Mapping[str, Any],
    samples: pa.Table,
    cells: Sequence[Cell],
    retain: RetainBatches | None,
    identities: Sequence[Mapping[str, Any]],
    drafts: Mapping[int, str] | None = None,
    team: Team = ALONE,
) -> list[tuple[pa.Table, dict[str, Any]]]:
    """Whole cells, as :func:`distforget.cell.run` does one; seconds are each cell's equal part."""
    outcomes = unlearn(learner, start, samples, cells, retain, team)
    began = time.monotonic()
    asked = [own_part(single.asked_rows(learner, samples, cell), team) for cell in cells]
    named = [{**identity, "phase": "post_unlearn"} for identity in identities]
    tables = ask(learner, asked, named, drafts)
    seconds = (time.monotonic() - began) / len(cells)
    return [
        (found, single.columns(outcome, seconds))
        for found, outcome in zip(tables, outcomes, strict=True)
    ]


def _slots(learner: Learner) -> Slots:
    if learner.slots is None:
        raise ValueError("cells share a batch only on a model with slots of adapters")
    return learner.slots
