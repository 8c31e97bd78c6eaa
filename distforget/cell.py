"""Runs one cell (restore, unlearn, ask) and scores a state. Imports neither Ray nor a track."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from distforget import schemas, selection
from distforget.draws import generator_seed
from distforget.methods import ResolvedMethod
from distforget.methods.base import Importance, RandomAnswerConfig
from distforget.parts import Part
from distforget.probes import OF_TOKENS, Evidence, columns_of, probe_of
from distforget.steppers import ALONE, Team, own_part, restore
from distforget.study import Study
from distforget.tracks.base import Learner, Noise, RetainBatches, terms_of_one
from distforget.training import StepReport, run_steps


@dataclass(frozen=True)
class Unlearned:
    """How unlearning went; the learner's module now holds the unlearned weights."""

    steps: int
    """Number of optimiser steps, including skipped ones."""
    skipped: int
    """Number of steps that were skipped because their gradient was not finite."""
    first_loss: float
    last_loss: float
    diverged: bool
    seconds: float


@dataclass(frozen=True)
class Cell:
    """What to unlearn, from which training data, and how."""

    study: Study
    method: ResolvedMethod
    unlearned: int
    dose: int
    repetition: int
    placebo: bool = False
    """True if an unrelated sample is unlearned; the questions are still about the target."""
    earlier: tuple[int, ...] = ()
    """Targets that are unlearned before it, one after another on the same weights."""

    def in_turn(self) -> list[Cell]:
        """What is unlearned, one after another: the earlier targets, then its own."""
        targets = (*self.earlier, self.unlearned)
        return [replace(self, unlearned=target, earlier=()) for target in targets]

    @property
    def noise(self) -> Noise | None:
        """The noise of enhanced unlearning; the draws are the same for all methods."""
        if self.method.enhanced is None or self.method.enhanced.gamma == 0:
            return None
        about = ("noise", self.unlearned, self.repetition)
        return Noise(self.method.enhanced, self.study.seed, about)


def unlearn(
    learner: Learner,
    start: Mapping[str, Any],
    samples: pa.Table,
    cell: Cell,
    retain: RetainBatches | None,
    team: Team = ALONE,
) -> Unlearned:
    """Restore the weights `start` (theta_0), then unlearn the cell's target.

    Of targets that are unlearned in turn each has the weights that the one before left as its
    theta_0; the retain batches' reference stays that of `start`.

    A method without steps (retrain) is done with it: its start was trained without the target.
    Divergence is an outcome: the weights reached are asked all the same. A step whose gradient is
    not finite is skipped and counted.
    """
    began = time.monotonic()
    put_back(learner, start)
    reports: list[StepReport] = []
    for one in cell.in_turn() if cell.method.unlearns else ():
        reports += _one(learner, samples, one, retain, team)
        if reports and reports[-1].diverged:
            break
    return unlearned(reports, learner.module.parameters(), time.monotonic() - began)


def _one(
    learner: Learner, samples: pa.Table, cell: Cell, retain: RetainBatches | None, team: Team
) -> list[StepReport]:
    """Unlearn one target from the weights that the learner has.

    Each worker of a team computes the whole loss: forget set and retain batch are small. What
    takes room, gradients and AdamW's state, is what a team may share.
    """
    method, config = cell.method.method, cell.method.config
    rows = forget_rows(learner, samples, cell)
    preferred = preferred_rows(learner, samples, rows, cell)
    forget = learner.encode(pa.concat_tables([rows, preferred]))
    terms_of = terms_of_one(learner, forget, retain, cell.noise, len(preferred))
    if method.edit is not None:
        assert retain is not None  # such a method is given batches
        rows_of_retain = sorted({row for batch in retain.batches for row in batch})
        importance = Importance(
            squared_gradients(learner, forget, range(len(rows))),
            squared_gradients(learner, retain.examples, rows_of_retain),
        )
        seed = generator_seed(cell.study.seed, "edit", cell.unlearned, cell.repetition)
        draw = torch.Generator().manual_seed(seed)
        theta_0 = {name: p.detach() for name, p in learner.module.named_parameters()}
        restore(learner.module, method.edit(theta_0, importance, config, draw))
        return []
    theta_0, reached = {}, {}
    with team.stepping(learner, config.gradient_clip) as stepper:
        if method.trains is not None:
            stepper.backward(cell.method.saliency(terms_of(0)))
            stepper.train_only(method.trains(config))
        if method.finish is not None:
            theta_0 = {name: weights.clone() for name, weights in stepper.weights().items()}
        reports = list(
            run_steps(
                stepper,
                ([step] for step in range(config.steps)),
                lambda step: cell.method.loss(terms_of(step)) / team.world,
                [config.learning_rate] * config.steps,
            )
        )
        if method.finish is not None:
            reached = stepper.weights()
    if method.finish is not None:
        restore(learner.module, method.finish(theta_0, reached, config))
    return reports


def squared_gradients(
    learner: Learner, examples: Any, rows: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Mean over some rows of the squared gradient of each one's NLL, by weight, in float32."""
    named = dict(learner.module.named_parameters())
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    for row in rows:
        learner.module.zero_grad(set_to_none=True)
        fit = learner.fit(examples, [row])
        torch.autograd.backward([fit.nll_sum / fit.answer_tokens])
        for name, p in named.items():
            if p.grad is not None:
                found[name] += p.grad.float() ** 2 / len(rows)
    learner.module.zero_grad(set_to_none=True)
    return found


def put_back(learner: Learner, start: Mapping[str, Any]) -> None:
    """Load weights into the learner: into the model itself, or into slot 0 if it has slots."""
    if learner.slots is None:
        restore(learner.module, start)
    else:
        learner.slots.load([start])


def forget_rows(learner: Learner, samples: pa.Table, cell: Cell) -> pa.Table:
    """The cell's forget set with the answers that its method trains on or away from.

    The target, then training samples that are unlearned with it, then its paraphrases.
    """
    study, target = cell.study, cell.unlearned
    forget = (
        selection.placebo_row(samples, target, cell.dose, cell.repetition, study)
        if cell.placebo
        else selection.target_row(samples, target)
    )
    if cell.method.enhanced:
        more = unlearned_too(learner, samples, forget, cell)
        count = cell.method.enhanced.paraphrases
        paraphrases = selection.paraphrase_rows(samples, target, count)
        forget = pa.concat_tables([forget, more, paraphrases])
    if cell.method.method.prefers:
        return forget
    return with_random_answers(learner, samples, forget, cell)


def preferred_rows(learner: Learner, samples: pa.Table, forget: pa.Table, cell: Cell) -> pa.Table:
    """The forget set with the answers that the method prefers; no rows if it prefers none."""
    if not cell.method.method.prefers:
        return forget.slice(0, 0)
    return with_random_answers(learner, samples, forget, cell)


def with_random_answers(
    learner: Learner, samples: pa.Table, forget: pa.Table, cell: Cell
) -> pa.Table:
    """These rows with the answers that the method's config draws; as they are if it draws none."""
    config, target = cell.method.config, cell.unlearned
    if not isinstance(config, RandomAnswerConfig):
        return forget
    draw = selection.random_answer_draw(target, cell.repetition, cell.study)
    match config.random_answer:
        case "sample":
            answer = selection.answer_of_another_sample(samples, forget, target, draw)
            answers = [answer] * len(forget)
        case "list":
            answers = [draw.choice(config.answers())] * len(forget)
        case "tokens":
            answers = learner.random_answers(forget, draw)
    return selection.with_answers(forget, answers)


def unlearned_too(learner: Learner, samples: pa.Table, target: pa.Table, cell: Cell) -> pa.Table:
    """The training samples that an enhanced method unlearns with the target.

    Those nearest to it, and similar samples by their ranks, each once.
    """
    assert cell.method.enhanced is not None
    trained = selection.training_rows(samples, cell.dose)
    nearest = nearest_rows(learner, trained, target, cell.method.enhanced.nearest)
    similar = selection.similar_rows(
        trained, cell.unlearned, cell.method.enhanced.with_target(cell.unlearned)
    )
    return pa.concat_tables([nearest, selection.without(similar, nearest)])


def nearest_rows(learner: Learner, rows: pa.Table, target: pa.Table, count: int) -> pa.Table:
    """The `count` rows that are most similar to the target; no search if `count` is 0."""
    return learner.nearest(rows, target, count) if count else rows.slice(0, 0)


def unlearned(
    reports: Sequence[StepReport], weights: Iterable[torch.Tensor], seconds: float
) -> Unlearned:
    """Summarises the steps that led to these weights.

    A cell that skipped most of its steps was not unlearned as asked and counts as diverged.
    """
    finite = bool(torch.stack([torch.isfinite(w).all() for w in weights]).all())
    if not reports:
        return Unlearned(0, 0, math.nan, math.nan, not finite, seconds)
    skipped = sum(report.skipped > 0 for report in reports)
    first, last = reports[0], reports[-1]
    diverged = last.diverged or not finite or 2 * skipped > len(reports)
    return Unlearned(len(reports), skipped, first.loss, last.loss, diverged, seconds)


def ask(
    learner: Learner,
    asked: pa.Table,
    identity: Mapping[str, Any],
    drafts: Mapping[int, str] | None = None,
) -> pa.Table:
    """Ask a model state; its table `answers` holds everything that text probes need.

    Args:
        asked: rows of `samples`.
        identity: model, phase, dose, ... as in the table's first columns.
        drafts: answers of another state by sample_id; they save time and change no answer.
    """
    evidence = learner.evidence(asked, drafts=drafts_of(asked, drafts))
    return answers(evidence, range(len(asked)), identity)


def drafts_of(asked: pa.Table, drafts: Mapping[int, str] | None) -> list[str] | None:
    """The drafts in the order of the rows; '' for rows without one."""
    if drafts is None:
        return None
    return [drafts.get(sample, "") for sample in asked["sample_id"].to_pylist()]


def answers(evidence: Evidence, rows: range, identity: Mapping[str, Any]) -> pa.Table:
    """Table `answers` for some rows of the evidence."""
    texts, sizes = evidence.answers(), evidence.answer_sizes()
    tokens, wrong = evidence.tokens(), evidence.wrong_logprobs()
    drawn = evidence.drawn_answers()
    found = [
        {
            **whose,
            "answer": texts[row],
            "answer_tokens": sizes[row],
            **dict(zip(OF_TOKENS, columns_of(tokens[row]), strict=True)),
            "wrong_logprobs": wrong[row],
            "drawn_answers": drawn[row],
        }
        for row, whose in zip(rows, rows_about(evidence.samples, rows, identity), strict=True)
    ]
    return schemas.from_rows("answers", found)


def scores(evidence: Evidence, config: Part, identity: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Run a probe on the evidence; returns table `scores` and the probe's own tables."""
    found = probe_of(config).run(evidence, config)
    whose = rows_about(evidence.samples, range(len(evidence.samples)), identity)
    values = [
        {**row, "metric": metric, "value": float(value)}
        for metric, values in found.values.items()
        for row, value in zip(whose, values, strict=True)
        if value is not np.ma.masked
    ]
    more = {
        name: [{**row, **own} for row, own in zip(whose, rows, strict=True)]
        for name, rows in found.tables.items()
    }
    every = {"scores": values, **more}
    return {name: schemas.from_rows(name, rows) for name, rows in every.items()}


def rows_about(samples: pa.Table, rows: range, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of some rows that say which state and which sample they are about."""
    some = samples.select(["sample_id", "role", "target_index"]).slice(rows.start, len(rows))
    return [{**identity, **row} for row in some.to_pylist()]


def run(
    learner: Learner,
    start: Mapping[str, Any],
    samples: pa.Table,
    cell: Cell,
    retain: RetainBatches | None,
    identity: Mapping[str, Any],
    drafts: Mapping[int, str] | None = None,
    team: Team = ALONE,
) -> tuple[pa.Table, dict[str, Any]]:
    """Run a whole cell; returns this worker's part of its answers, and its columns of `cells`."""
    outcome = unlearn(learner, start, samples, cell, retain, team)
    began = time.monotonic()
    named = {**identity, "phase": "post_unlearn"}
    asked = own_part(asked_rows(learner, samples, cell), team)
    found = ask(learner, asked, named, drafts)
    return found, columns(outcome, time.monotonic() - began)


def asked_rows(learner: Learner, samples: pa.Table, cell: Cell) -> pa.Table:
    """The samples that the cell's model is asked after unlearning.

    Other samples and neighbours that were unlearned with the target are left out, since they are
    no controls.
    """
    asked = selection.asked_rows(samples, (*cell.earlier, cell.unlearned), cell.study)
    if not (cell.method.enhanced and cell.method.enhanced.unlearns_more):
        return asked
    target = selection.target_row(samples, cell.unlearned)
    more = unlearned_too(learner, samples, target, cell)
    strange = more.filter(pc.is_in(more["role"], pa.array(["other", "neighbour"])))
    return selection.without(asked, strange)


def columns(outcome: Unlearned, ask_seconds: float) -> dict[str, Any]:
    """The columns of `cells` that say how unlearning and asking went."""
    return {
        "diverged": outcome.diverged,
        "steps": outcome.steps,
        "skipped_steps": outcome.skipped,
        "first_loss": _or_none(outcome.first_loss),
        "last_loss": _or_none(outcome.last_loss),
        "unlearn_seconds": outcome.seconds,
        "ask_seconds": ask_seconds,
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
