"""What methods may ask of an unlearning step on text: terms of one cell, or of several at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise

from torch import Tensor

from distforget import losses
from distforget.tracks.base import RetainBatches
from distforget.tracks.text.encoding import TextExamples

Logits = tuple[Tensor, Tensor]
"""Logits (B, T, V) and labels (B, T)."""

Forward = Callable[[TextExamples, Sequence[int], Sequence[int]], Logits]
"""A forward pass over some rows of the examples, each with its slot."""


class TextTermsOfCells:
    """Gives each step its terms; keeps what all steps share."""

    def __init__(
        self,
        forward: Forward,
        forget: TextExamples,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
    ) -> None:
        self.forward = forward
        self.forget, self.rows = forget, rows
        self.retain, self.retaining = retain, retaining
        self.reference_logprobs_B: dict[int, Tensor] = {}

    def __call__(self, step: int, cells: Sequence[int]) -> list[TextTerms]:
        """Fresh terms of step `step`, one for each of these cells."""
        passes = Passes(self, step, cells)
        return [TextTerms(passes, cell) for cell in cells]


class Passes:
    """A step's forward pass for the forget sets of its cells, and that for their retain batches."""

    def __init__(self, shared: TextTermsOfCells, step: int, cells: Sequence[int]) -> None:
        self.shared = shared
        self.step = step
        self.cells = cells

    @cached_property
    def target(self) -> dict[int, Logits]:
        """By cell."""
        shared = self.shared
        return self._forward(shared.forget, {cell: shared.rows[cell] for cell in self.cells})

    @cached_property
    def batch_index(self) -> int:
        """Of the step's retain batch."""
        assert self.shared.retain is not None  # a method with a regulariser is given batches
        return self.step % len(self.shared.retain.batches)

    @cached_property
    def retain(self) -> dict[int, Logits]:
        """By cell that has a regulariser."""
        retain = self.shared.retain
        assert retain is not None
        rows = retain.batches[self.batch_index]
        mine = {cell: rows for cell in self.cells if cell in self.shared.retaining}
        return self._forward(retain.examples, mine)

    def _forward(
        self, examples: TextExamples, rows_of: Mapping[int, Sequence[int]]
    ) -> dict[int, Logits]:
        rows = [row for rows in rows_of.values() for row in rows]
        slot_of_row = [cell for cell, rows in rows_of.items() for _ in rows]
        logits, labels = self.shared.forward(examples, rows, slot_of_row)
        ends = [0, *accumulate(len(rows) for rows in rows_of.values())]
        parts = [(logits[low:high], labels[low:high]) for low, high in pairwise(ends)]
        return dict(zip(rows_of, parts, strict=True))


class TextTerms:
    """Implements `methods.base.Terms` for one cell of a step."""

    def __init__(self, passes: Passes, cell: int) -> None:
        self.passes = passes
        self.cell = cell

    def target_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self.passes.target[self.cell])

    def target_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_logprobs(*self.passes.target[self.cell])

    def target_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; the first step is at theta_0, so its own pass is the reference."""
        known = self.passes.shared.reference_logprobs_B
        if self.cell not in known:
            assert self.passes.step == 0
            known[self.cell] = self.target_logprobs_B().detach()
        return known[self.cell]

    def retain_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self.passes.retain[self.cell])

    def retain_kl(self) -> Tensor:
        """See `Terms`."""
        logits, labels = self.passes.retain[self.cell]
        assert self.passes.shared.retain is not None
        reference = self.passes.shared.retain.reference[str(self.passes.batch_index)]
        return losses.answer_token_kl(
            losses.answer_token_distributions(logits, labels), reference.to(logits.device)
        )
