"""Computes the Terms of an unlearning step, for one cell or several at once.

For every track whose model gives logits and labels: text has an answer of tokens, an image one of
one token, its label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from distforget import losses
from distforget.tracks.base import Noise, RetainBatches

Logits = tuple[Tensor, Tensor]
"""Logits (B, T, V) and labels (B, T)."""

Forward = Callable[[Any, Sequence[int], Sequence[int], Sequence[Noise | None], int], Logits]
"""A forward pass over some rows of the examples, each with its slot and noise, at a step."""


class LogitTermsOfCells:
    """Gives each step its terms; keeps what all steps share."""

    def __init__(
        self,
        forward: Forward,
        forget: Any,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
        preferred: Mapping[int, int],
    ) -> None:
        self.forward = forward
        self.forget, self.rows = forget, rows
        self.retain, self.retaining = retain, retaining
        self.noises = noises
        self.preferred = preferred
        self.reference_logprobs_B: dict[int, Tensor] = {}
        """By row of the forget examples, each (1,)."""
        self.reference_distributions_NV: dict[int, Tensor] = {}
        """By row of the forget examples."""

    def __call__(self, step: int, cells: Sequence[int]) -> list[list[LogitTerms]]:
        """Fresh terms of step `step`: for each of these cells one for each row it forgets."""
        passes = Passes(self, step, cells)
        return [[LogitTerms(passes, cell, row) for row in self.rows[cell]] for cell in cells]


class Passes:
    """A step's forward pass for the forget sets of its cells, and that for their retain batches."""

    def __init__(self, shared: LogitTermsOfCells, step: int, cells: Sequence[int]) -> None:
        self.shared = shared
        self.step = step
        self.cells = cells

    @cached_property
    def target(self) -> dict[int, Logits]:
        """By row of the forget examples, under the cells' noise."""
        return self._target(self.shared.noises)

    @cached_property
    @torch.no_grad()
    def target_without_noise(self) -> dict[int, Logits]:
        """The same without noise and without gradient."""
        return self._target([None] * len(self.shared.noises))

    def _target(self, noises: Sequence[Noise | None]) -> dict[int, Logits]:
        preferred = self.shared.preferred
        rows_of = {
            cell: [*rows, *(preferred[row] for row in rows if row in preferred)]
            for cell, rows in ((cell, self.shared.rows[cell]) for cell in self.cells)
        }
        logits, labels = self._forward(self.shared.forget, rows_of, noises)
        rows = [row for rows in rows_of.values() for row in rows]
        return {row: (logits[i : i + 1], labels[i : i + 1]) for i, row in enumerate(rows)}

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
        logits, labels = self._forward(retain.examples, mine, [None] * len(self.shared.noises))
        bounds = pairwise(range(0, len(logits) + 1, len(rows)))
        parts = [(logits[low:high], labels[low:high]) for low, high in bounds]
        return dict(zip(mine, parts, strict=True))

    def _forward(
        self,
        examples: Any,
        rows_of: Mapping[int, Sequence[int]],
        noises: Sequence[Noise | None],
    ) -> Logits:
        """All rows of all cells, in order."""
        rows = [row for rows in rows_of.values() for row in rows]
        slot_of_row = [cell for cell, rows in rows_of.items() for _ in rows]
        noise_of_row = [noises[cell] for cell in slot_of_row]
        return self.shared.forward(examples, rows, slot_of_row, noise_of_row, self.step)


class LogitTerms:
    """Implements `methods.base.Terms` for one row of a cell's forget set."""

    def __init__(self, passes: Passes, cell: int, row: int) -> None:
        self.passes = passes
        self.cell, self.row = cell, row

    def target_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self.passes.target[self.row])

    def target_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_logprobs(*self.passes.target[self.row])

    def target_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; the first step is at theta_0. Under noise the reference is still without."""
        return self._reference_logprobs_B(self.row)

    def _reference_logprobs_B(self, row: int) -> Tensor:
        known = self.passes.shared.reference_logprobs_B
        if row not in known:
            known[row] = losses.answer_logprobs(*self._without_noise()[row]).detach()
        return known[row]

    def _without_noise(self) -> dict[int, Logits]:
        assert self.passes.step == 0
        noised = self.passes.shared.noises[self.cell] is not None
        return self.passes.target_without_noise if noised else self.passes.target

    def target_token_logprobs(self) -> Sequence[Tensor]:
        """See `Terms`."""
        return losses.token_logprobs(*self.passes.target[self.row])

    def target_distribution_NV(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_token_distributions(*self.passes.target[self.row])

    def target_reference_distribution_NV(self) -> Tensor:
        """See `Terms`; as the other reference, at theta_0 and without noise."""
        known = self.passes.shared.reference_distributions_NV
        if self.row not in known:
            found = losses.answer_token_distributions(*self._without_noise()[self.row])
            known[self.row] = found.detach()
        return known[self.row]

    def target_labels_N(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_tokens(self.passes.target[self.row][1])

    def preferred_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        preferred = self.passes.shared.preferred[self.row]
        return losses.answer_logprobs(*self.passes.target[preferred])

    def preferred_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; as the target's."""
        return self._reference_logprobs_B(self.passes.shared.preferred[self.row])

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
