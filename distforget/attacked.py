"""A model state under attack: what an attacker may read and do."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import torch

from distforget import selection
from distforget.cell import Cell
from distforget.draws import rng
from distforget.errors import UsageError
from distforget.steppers import TorchStepper
from distforget.tracks.base import Learner
from distforget.training import run_steps


@dataclass(frozen=True)
class Attacked:
    """Implements `attacks.Attacked`."""

    learner: Learner
    module: torch.nn.Module
    samples: pa.Table
    cell: Cell | None
    """None: the state is no cell's, so that no target was unlearned."""

    def similar(self) -> pa.Table:
        """See `attacks.Attacked`; those of all ranks, whatever the dose.

        Raises:
            UsageError: the target has none.
        """
        target = self._unlearned().unlearned
        ranks = pc.drop_null(self.samples["similar_rank"]).unique().to_pylist()
        return self._some(selection.similar_rows(self.samples, target, ranks), "similar samples")

    def others(self, count: int) -> pa.Table:
        """See `attacks.Attacked`.

        Raises:
            UsageError: all other samples are asked.
        """
        own = self._unlearned()
        rows = selection.unasked_others(self.samples, own.study)
        draw = rng(own.study.seed, "attacker", own.unlearned, own.repetition)
        return self._some(rows.take(draw.permutation(len(rows))[:count]), "other samples unasked")

    def nearest(self, count: int) -> pa.Table:
        """See `attacks.Attacked`; alike as enhanced unlearning has it.

        Raises:
            UsageError: all other samples are asked.
        """
        own = self._unlearned()
        rows = self._some(
            selection.unasked_others(self.samples, own.study), "other samples unasked"
        )
        target = selection.target_row(self.samples, own.unlearned)
        return self.learner.nearest(rows, target, count)

    def another_target(self) -> pa.Table:
        """See `attacks.Attacked`; the first one after the last.

        Raises:
            UsageError: there is one target.
        """
        own = self._unlearned()
        following = own.unlearned % own.study.data.targets + 1
        rows = selection.target_row(self.samples, following)
        return self._some(rows if following != own.unlearned else rows.slice(0, 0), "other target")

    def train(self, rows: pa.Table, steps: int, learning_rate: float, batch_size: int) -> None:
        """See `attacks.Attacked`; all weights of the model are trained."""
        examples, size = self.learner.encode(rows), min(batch_size, len(rows))
        places = [[(step * size + i) % len(rows) for i in range(size)] for step in range(steps)]
        frozen = [p for p in self.module.parameters() if not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(True)
        stepper = TorchStepper(self.module, weight_decay=0.0, clip=1.0)

        def share(places: list[int]) -> torch.Tensor:
            fit = self.learner.fit(examples, places)
            return fit.nll_sum / fit.answer_tokens

        for _ in run_steps(stepper, ([p] for p in places), share, [learning_rate] * steps):
            pass
        for parameter in frozen:
            parameter.requires_grad_(False)

    def _unlearned(self) -> Cell:
        assert self.cell is not None  # the plan attacks no other state so
        return self.cell

    def _some(self, rows: pa.Table, what: str) -> pa.Table:
        if not len(rows):
            raise UsageError(f"attacks: there are no {what} to train on; choose other rows")
        return rows
