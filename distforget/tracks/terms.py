"""Computes the Terms of an unlearning step, for one cell or several at once.

For every track whose model gives logits and labels: text has an answer of tokens, an image one of
one token, its label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distforget import losses
from distforget.errors import UsageError
from distforget.tracks.base import Noise, RetainBatches


class Passed(NamedTuple):
    """What a forward pass gives of some rows."""

    logits: Tensor
    """(B, T, V)"""
    labels: Tensor
    """(B, T)"""
    hidden: Sequence[Tensor] = ()
    """(B, T, H) of the embeddings and of each layer; none of models that give none."""

    def rows(self, low: int, high: int) -> Passed:
        """The same for some of the rows."""
        hidden = [states[low:high] for states in self.hidden]
        return Passed(self.logits[low:high], self.labels[low:high], hidden)

    def at_answers(self, layer: int) -> Tensor:
        """(N, H): hidden states that predict answer tokens."""
        number = (len(self.hidden) - 1) // 2 if layer == -1 else layer
        if number >= len(self.hidden):
            raise UsageError(
                f"methods: layer is {layer}, but the model has {len(self.hidden) - 1} layers; "
                "lower it"
            )
        return losses.at_answers(self.hidden[number], self.labels)


Forward = Callable[[Any, Sequence[int], Sequence[int], Sequence[Noise | None], int], Passed]
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
        self.reference_hidden_NH: dict[tuple[int, int], list[Tensor]] = {}
        """By cell and layer, of each retain batch."""

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
    def target(self) -> dict[int, Passed]:
        """By row of the forget examples, under the cells' noise."""
        return self._target(self.shared.noises)

    @cached_property
    @torch.no_grad()
    def target_without_noise(self) -> dict[int, Passed]:
        """The same without noise and without gradient."""
        return self._target([None] * len(self.shared.noises))

    def _target(self, noises: Sequence[Noise | None]) -> dict[int, Passed]:
        preferred = self.shared.preferred
        rows_of = {
            cell: [*rows, *(preferred[row] for row in rows if row in preferred)]
            for cell, rows in ((cell, self.shared.rows[cell]) for cell in self.cells)
        }
        passed = self._forward(self.shared.forget, rows_of, noises)
        rows = [row for rows in rows_of.values() for row in rows]
        return {row: passed.rows(i, i + 1) for i, row in enumerate(rows)}

    @cached_property
    def batch_index(self) -> int:
        """Of the step's retain batch."""
        assert self.shared.retain is not None  # a method with a regulariser is given batches
        return self.step % len(self.shared.retain.batches)

    @cached_property
    def retain(self) -> dict[int, Passed]:
        """By cell that asks for retain terms."""
        return self._retain(self.batch_index, [c for c in self.cells if c in self.shared.retaining])

    @torch.no_grad()
    def hidden_of_retain(self, cell: int, layer: int) -> list[Tensor]:
        """Of each retain batch under the cell's weights, (N, H)."""
        assert self.shared.retain is not None
        batches = range(len(self.shared.retain.batches))
        return [self._retain(index, [cell])[cell].at_answers(layer) for index in batches]

    def _retain(self, batch_index: int, cells: Sequence[int]) -> dict[int, Passed]:
        retain = self.shared.retain
        assert retain is not None
        rows = retain.batches[batch_index]
        rows_of = dict.fromkeys(cells, rows)
        passed = self._forward(retain.examples, rows_of, [None] * len(self.shared.noises))
        bounds = pairwise(range(0, len(passed.logits) + 1, len(rows)))
        return {c: passed.rows(*bound) for c, bound in zip(rows_of, bounds, strict=True)}

    def _forward(
        self,
        examples: Any,
        rows_of: Mapping[int, Sequence[int]],
        noises: Sequence[Noise | None],
    ) -> Passed:
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
        return losses.answer_nll(*self.passes.target[self.row][:2])

    def target_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_logprobs(*self.passes.target[self.row][:2])

    def target_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; the first step is at theta_0. Under noise the reference is still without."""
        return self._reference_logprobs_B(self.row)

    def _reference_logprobs_B(self, row: int) -> Tensor:
        known = self.passes.shared.reference_logprobs_B
        if row not in known:
            known[row] = losses.answer_logprobs(*self._without_noise()[row][:2]).detach()
        return known[row]

    def _without_noise(self) -> dict[int, Passed]:
        assert self.passes.step == 0
        noised = self.passes.shared.noises[self.cell] is not None
        return self.passes.target_without_noise if noised else self.passes.target

    def target_token_logprobs(self) -> Sequence[Tensor]:
        """See `Terms`."""
        return losses.token_logprobs(*self.passes.target[self.row][:2])

    def target_distribution_NV(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_token_distributions(*self.passes.target[self.row][:2])

    def target_reference_distribution_NV(self) -> Tensor:
        """See `Terms`; as the other reference, at theta_0 and without noise."""
        known = self.passes.shared.reference_distributions_NV
        if self.row not in known:
            found = losses.answer_token_distributions(*self._without_noise()[self.row][:2])
            known[self.row] = found.detach()
        return known[self.row]

    def target_labels_N(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_tokens(self.passes.target[self.row].labels)

    def preferred_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        preferred = self.passes.shared.preferred[self.row]
        return losses.answer_logprobs(*self.passes.target[preferred][:2])

    def preferred_nll(self) -> Tensor:
        """See `Terms`."""
        preferred = self.passes.shared.preferred[self.row]
        return losses.answer_nll(*self.passes.target[preferred][:2])

    def preferred_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; as the target's."""
        return self._reference_logprobs_B(self.passes.shared.preferred[self.row])

    def target_hidden_NH(self, layer: int) -> Tensor:
        """See `Terms`."""
        return self.passes.target[self.row].at_answers(layer)

    def retain_hidden_NH(self, layer: int) -> Tensor:
        """See `Terms`."""
        return self.passes.retain[self.cell].at_answers(layer)

    def retain_reference_hidden_NH(self, layer: int) -> Tensor:
        """See `Terms`; of all batches at the first step, which is at theta_0."""
        known, key = self.passes.shared.reference_hidden_NH, (self.cell, layer)
        if key not in known:
            assert self.passes.step == 0
            known[key] = self.passes.hidden_of_retain(self.cell, layer)
        return known[key][self.passes.batch_index]

    def retain_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self.passes.retain[self.cell][:2])

    def retain_kl(self) -> Tensor:
        """See `Terms`."""
        logits, labels, _ = self.passes.retain[self.cell]
        assert self.passes.shared.retain is not None
        reference = self.passes.shared.retain.reference[str(self.passes.batch_index)]
        return losses.answer_token_kl(
            losses.answer_token_distributions(logits, labels), reference.to(logits.device)
        )
