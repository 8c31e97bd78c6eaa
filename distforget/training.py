"""The training loop for fine-tuning and unlearning, over a Stepper. Imports no Ray and no track."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from distforget.batches import MicroBatch, global_batches, micro_batch_count, micro_batches
from distforget.draws import rng
from distforget.study import FinetuneConfig
from distforget.tracks.base import Examples, Learner

EXPLODED_LOSS = 1e4
"""A loss beyond this (nats) counts as diverged, like NaN and infinity."""

MOST_SKIPPED = 3
"""Steps in a row without a finite gradient that count as a divergence; fewer are skipped."""

M = TypeVar("M")


class Stepper(Protocol):
    """Takes gradients and changes weights; one implementation for torch, one for DeepSpeed.

    `rank` of `world` workers hold the same (or a shard of the same) model.
    """

    rank: int
    world: int

    def backward(self, share: Tensor) -> None:
        """Add the gradient of a worker's share of the global loss; shares add up over workers."""
        ...

    def step(self, learning_rate: float) -> bool:
        """Change the weights and clear gradients; False (and no change) if they are not finite."""
        ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum over workers, the same on each."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Whole weights and optimiser state on the CPU, on rank 0 (empty elsewhere).

        Names: weight/NAME, exp_avg/NAME, exp_avg_sq/NAME, and `step`. All ranks must call it.
        """
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state`, whichever stepper and number of workers wrote it."""
        ...


class TorchStepper:
    """AdamW on a plain module, or on one per worker with gradients summed over workers.

    Weights of 16 bits are rounded from float32 ones, on which steps are taken: at the learning
    rates of fine-tuning most steps are smaller than half the distance of two numbers of 16 bits.
    """

    def __init__(
        self, module: nn.Module, weight_decay: float, clip: float, rank: int = 0, world: int = 1
    ) -> None:
        self.module = module
        self.rank, self.world = rank, world
        self.clip = clip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.masters = [
            nn.Parameter(p.detach().float()) if p.element_size() < 4 else p for p in self.parameters
        ]
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=0.0, weight_decay=weight_decay, fused=True
        )
        self.trained: list[Tensor] | None = None
        """Of each weight whether it is trained; None: all are."""
        # What failed in a backward pass before left a part of its gradient in the module.
        module.zero_grad(set_to_none=True)

    def backward(self, share: Tensor) -> None:
        """See `Stepper`."""
        share.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    def train_only(self, share: float) -> None:
        """From here on only this share of the weights is trained: the largest gradients now.

        Clears the gradients.
        """
        sizes = [torch.zeros_like(p) if p.grad is None else p.grad.abs() for p in self.parameters]
        every = torch.cat([size.flatten().float() for size in sizes])
        least = every.kthvalue(len(every) - max(1, int(share * len(every))) + 1).values
        self.trained = [size.float() >= least for size in sizes]
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, learning_rate: float) -> bool:
        """See `Stepper`."""
        for parameter, master in self._rounded():
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        for master, mine in zip(self.masters, self.trained or (), strict=bool(self.trained)):
            if master.grad is not None:
                master.grad.mul_(mine)
        gradients = [p.grad for p in self.masters if p.grad is not None]
        if self.world > 1:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        norm = nn.utils.clip_grad_norm_(self.masters, self.clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate
            self.optimiser.step()
            self._round()
        self.optimiser.zero_grad(set_to_none=True)
        return finite

    def sum(self, values: Sequence[float]) -> list[float]:
        """See `Stepper`."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.parameters[0].device)
        torch.distributed.all_reduce(total)
        return [float(v) for v in total]

    def _rounded(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        pairs = zip(self.parameters, self.masters, strict=True)
        return [(parameter, master) for parameter, master in pairs if parameter is not master]

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self._rounded():
            parameter.copy_(master)

    def weights(self) -> dict[str, Tensor]:
        """The weights by name, float32 or wider, where they are; not copied."""
        return {name: master.detach() for name, master in self._named()}

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        names = (n for n, p in self.module.named_parameters() if p.requires_grad)
        return zip(names, self.masters, strict=True)

    def state(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        if self.rank:
            return {}
        found: dict[str, Tensor] = {"step": torch.zeros(1)}
        for name, parameter in self._named():
            found[f"weight/{name}"] = parameter.detach().cpu().clone()
            inner = self.optimiser.state.get(parameter)
            if inner:
                found["step"] = inner["step"].reshape(1).float().cpu().clone()
                found[f"exp_avg/{name}"] = inner["exp_avg"].cpu().clone()
                found[f"exp_avg_sq/{name}"] = inner["exp_avg_sq"].cpu().clone()
        return found

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Stepper`."""
        for name, parameter in self._named():
            parameter.copy_(state[f"weight/{name}"])
            if f"exp_avg/{name}" in state:
                self.optimiser.state[parameter] = {
                    # A copy each: fused AdamW counts in place.
                    "step": state["step"].reshape(()).to(parameter.device, copy=True),
                    "exp_avg": state[f"exp_avg/{name}"].to(parameter),
                    "exp_avg_sq": state[f"exp_avg_sq/{name}"].to(parameter),
                }
        self._round()


@dataclass(frozen=True)
class StepReport:
    """How one optimiser step went."""

    loss: float
    """The global loss before the step, in nats."""
    skipped: int
    """0 if the step was taken. Otherwise its gradient was not finite, the weights stayed as they
    were, and this is the number of steps in a row, up to this one, of which that is true."""

    @classmethod
    def of(cls, loss: float, changed: bool, previous: StepReport | None) -> StepReport:
        """The report of a step after `previous` that changed the weights, or could not."""
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
        own = 0.0
        for micro_batch in parts:
            share = share_of(micro_batch)
            own += float(share.detach())
            stepper.backward(share)
        (loss,) = stepper.sum([own])
        previous = StepReport.of(loss, stepper.step(learning_rate), previous)
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
    ) -> None:
        """Fine-tunes on all rows but `left_out`, in the order in which it would with those."""
        self.learner, self.stepper, self.examples = learner, stepper, examples
        self.config = config
        self.seed = seed
        self.left_out = left_out
        self.history: list[Epoch] = []
        self.last_step: StepReport | None = None

    @property
    def rows(self) -> np.ndarray:
        """(N,) numbers of the examples trained on."""
        every = np.arange(len(self.examples.sizes))
        rows: np.ndarray = every[~np.isin(every, self.left_out)]
        return rows

    @property
    def micro_batches_per_step(self) -> int:
        """How many micro-batches each worker takes in a step."""
        return micro_batch_count(self.config, self.stepper.world)

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
        counts = np.zeros(3)

        def share_of(part: MicroBatch) -> Tensor:
            fit = self.learner.fit(self.examples, part.rows)
            if part.weight:
                counts[:] += (fit.answer_tokens, fit.correct_tokens, fit.exact_rows)
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
        tokens, correct, exact = self.stepper.sum(counts.tolist())
        accuracy, exact_rate = correct / tokens, exact / len(self.rows)
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
        return micro_batches(
            batch,
            self.examples,
            self.config.micro_batch_size,
            self.micro_batches_per_step,
            self.stepper.rank,
            self.stepper.world,
        )

    @torch.no_grad()
    def memorised(self) -> tuple[float, float]:
        """Share of answer tokens predicted right, and of rows with all of them right."""
        counts = np.zeros(3)
        order = self.rows[np.argsort(self.examples.sizes[self.rows], kind="stable")]
        size = self.config.batch_size
        for start in range(0, len(order), size):
            for part in self._parts(order[start : start + size]):
                fit = self.learner.fit(self.examples, part.rows)
                if part.weight:
                    counts += (fit.answer_tokens, fit.correct_tokens, fit.exact_rows)
        tokens, correct, exact = self.stepper.sum(counts.tolist())
        return correct / tokens, exact / len(order)


def restore(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Copy weights (tensors or read-only numpy arrays) into a module's parameters, in place."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(weights[name]), non_blocking=True)
