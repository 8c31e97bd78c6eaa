"""The training loop for fine-tuning and unlearning, over a Stepper. Imports no Ray and no track."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from distforget.batches import MicroBatch, global_batches, micro_batches
from distforget.draws import rng
from distforget.steppers import Stepper
from distforget.study import FinetuneConfig
from distforget.tracks.base import Examples, Learner

EXPLODED_LOSS = 1e4
"""A loss beyond this (nats) counts as diverged, like NaN and infinity."""

MOST_SKIPPED = 3
"""Steps in a row without a finite gradient that count as a divergence; fewer are skipped."""

TOKENS_AT_ONCE = 8192
"""Of a forward pass on a CPU, where more are no faster."""

M = TypeVar("M")


@dataclass(frozen=True)
class StepReport:
    """How one optimiser step went."""

    loss: float
    """The global loss before the step, in nats."""
    skipped: int
    """0 if the step was taken. Otherwise its gradient was not finite, the weights stayed as they
    were, and this is the number of steps in a row, up to this one, of which that is true."""

    @classmethod
    def of(cls, step: Sequence[float], previous: StepReport | None) -> StepReport:
        """The report of a step after `previous`, from what `Stepper.step` returned."""
        loss, changed = step
        return cls(loss, 0 if changed else 1 + (previous.skipped if previous else 0))

    @property
    def diverged(self) -> bool:
        """True if training must end here: a worthless loss, or too many skipped steps in a row."""
        worthless = not math.isfinite(self.loss) or abs(self.loss) >= EXPLODED_LOSS
        return worthless or self.skipped >= MOST_SKIPPED


def run_steps(
    stepper: Stepper,
    batches: Iterable[Sequence[M]],
    share_of: Callable[[M], Tensor],
    learning_rates: Iterable[float],
    previous: StepReport | None = None,
) -> Iterator[StepReport]:
    """Take one optimiser step per batch of micro-batches; end early after a step that diverged.

    A step whose gradient is not finite is skipped, and training goes on with the next batch.

    Args:
        batches: per step, the micro-batches of this worker (as many on each worker).
        share_of: a micro-batch's share of the global loss; shares add up to it.
        learning_rates: one per step.
        previous: the report of the step before these, if there was one.
    """
    for parts, learning_rate in zip(batches, learning_rates, strict=False):
        shares = []
        for micro_batch in parts:
            share = share_of(micro_batch)
            shares.append(share.detach().double())
            stepper.backward(share)
        own = torch.stack(shares).sum()
        previous = StepReport.of(stepper.step(learning_rate, own).tolist(), previous)
        yield previous
        if previous.diverged:
            return


@dataclass(frozen=True)
class Epoch:
    """A row of the `training` table, without what the training run is of."""

    epoch: int
    step: int
    loss: float | None
    token_accuracy: float
    exact_rate: float
    tokens: int
    seconds: float
    stopped: str | None
    skipped_steps: int = 0
    kkt_residual: float | None = None
    kkt_residual_free: float | None = None
    held_out_accuracy: float | None = None


class Finetuning:
    """Fine-tunes to proven memorisation; every worker runs the same object on its rows."""

    def __init__(
        self,
        learner: Learner,
        stepper: Stepper,
        examples: Examples,
        config: FinetuneConfig,
        seed: tuple[int, int],
        left_out: Sequence[int] = (),
        most_tokens: int = TOKENS_AT_ONCE,
    ) -> None:
        """Fine-tunes on all rows but `left_out`, in the order in which it would with those.

        Args:
            most_tokens: of a forward pass, padding included.
        """
        self.learner, self.stepper, self.examples = learner, stepper, examples
        self.config = config
        self.seed = seed
        self.left_out = left_out
        self.most_tokens = most_tokens
        self.history: list[Epoch] = []
        self.last_step: StepReport | None = None

    @property
    def rows(self) -> np.ndarray:
        """(N,) numbers of the examples trained on."""
        every = np.arange(len(self.examples.sizes))
        rows: np.ndarray = every[~np.isin(every, self.left_out)]
        return rows

    def run(self, history: Sequence[Epoch] = ()) -> Iterator[Epoch]:
        """Train on after the epochs of `history`; the last epoch says why it stopped.

        Raises:
            FloatingPointError: the loss is not finite, or `MOST_SKIPPED` gradients in a row.
        """
        self.history = list(history)
        if not self.history:
            accuracy, exact = self.memorised()
            yield self._note(Epoch(0, 0, None, accuracy, exact, 0, 0.0, None))
        while self.history[-1].stopped is None:
            yield self._note(self._epoch(self.history[-1]))

    def _note(self, epoch: Epoch) -> Epoch:
        self.history.append(epoch)
        return epoch

    def _epoch(self, last: Epoch) -> Epoch:
        started = time.monotonic()
        number = last.epoch + 1
        batches = global_batches(
            self.examples,
            self.config.batch_size,
            rng(self.seed[0], "finetune order", self.seed[1], number),
            self.left_out,
        )
        correct: list[Tensor] = []

        def share_of(part: MicroBatch) -> Tensor:
            fit = self.learner.fit(self.examples, part.rows)
            if part.weight:
                correct.append(fit.correct)
            return fit.nll_sum * part.weight

        warmup = max(self.config.warmup_steps, 1)
        rates = (
            self.config.learning_rate * min(1.0, (last.step + i + 1) / warmup)
            for i in range(len(batches))
        )
        reports = []
        for report in run_steps(
            self.stepper, map(self._parts, batches), share_of, rates, self.last_step
        ):
            self.last_step = report
            if report.diverged:
                gradients = f", {report.skipped} gradients in a row not finite"
                raise FloatingPointError(
                    f"fine-tuning diverged in epoch {number} (loss {report.loss}"
                    f"{gradients if report.skipped else ''}); lower finetune.learning_rate"
                )
            reports.append(report)
        accuracy, exact_rate = self._rates(correct)
        # Counted while the weights changed, which costs nothing. Only where that is near the
        # threshold, or nothing follows, is a pass spent on the weights as they are now.
        last_one = number >= self.config.max_epochs
        if last_one or accuracy > self.config.stop_token_accuracy - 0.05:
            accuracy, exact_rate = self.memorised()
        stopped = "max_epochs" if last_one else None
        if (
            accuracy >= self.config.stop_token_accuracy
            and exact_rate >= self.config.stop_exact_rate
        ):
            stopped = "memorised"
        return Epoch(
            number,
            last.step + len(batches),
            float(np.mean([report.loss for report in reports])),
            accuracy,
            exact_rate,
            last.tokens + int(self.examples.sizes[self.rows].sum()),
            last.seconds + time.monotonic() - started,
            stopped,
            last.skipped_steps + sum(report.skipped > 0 for report in reports),
        )

    def _parts(self, batch: np.ndarray) -> list[MicroBatch]:
        stepper = self.stepper
        return micro_batches(batch, self.examples, self.most_tokens, stepper.rank, stepper.world)

    @torch.no_grad()
    def memorised(self) -> tuple[float, float]:
        """Share of answer tokens predicted right, and of rows with all of them right."""
        correct = []
        order = self.rows[np.argsort(self.examples.sizes[self.rows], kind="stable")]
        size = self.config.batch_size
        for start in range(0, len(order), size):
            for part in self._parts(order[start : start + size]):
                fit = self.learner.fit(self.examples, part.rows)
                if part.weight:
                    correct.append(fit.correct)
        return self._rates(correct)

    def _rates(self, correct: Sequence[Tensor]) -> tuple[float, float]:
        own = torch.stack(list(correct)).sum(0).tolist() if correct else [0, 0]
        tokens, rows = self.stepper.sum(own)
        return tokens / int(self.examples.answer_sizes[self.rows].sum()), rows / len(self.rows)
