"""The interface of a track (text or image), through which all other code uses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from distforget.method_choice import EnhancedConfig
from distforget.methods.base import Terms
from distforget.probes import Evidence

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class OpenData:
    """A dataset whose source has been read; its similar samples are still to be made."""

    families: pa.Table
    """Base rows of the targets and their families: what similar samples are made of."""
    complete: Callable[[pa.Table], pa.Table]
    """From the similar samples, the first rows of `samples` (see `tracks.rows.row_schema`)."""
    rest: Sequence[Callable[[], Iterator[pa.Table]]]
    """Readers of the other rows of `samples`, in streams; they are numbered from `first` on."""
    first: int
    """Number of rows before the rest, if each target has as many similar samples as asked for."""
    rows: int
    """Number of rows of all roles together, likewise."""


class Examples(Protocol):
    """Encoded samples, ready to be put into batches."""

    sizes: np.ndarray
    """(N,) cost of each row in padded batches (text: tokens)."""
    answer_sizes: np.ndarray
    """(N,) answer tokens of each row; losses are averaged over them."""


@dataclass(frozen=True)
class Fit:
    """Sums over a micro-batch: they add up over any split of the global batch."""

    nll_sum: Tensor
    answer_tokens: int
    correct: Tensor
    """(2,) tokens that were predicted right, and rows of which all were; on the device."""


class Slots(Protocol):
    """Small sets of weights on a shared, frozen model; each slot holds one set."""

    def load(self, slots: Sequence[Mapping[str, Any]]) -> None:
        """Copy these weights into slots 0, 1, ...; there are then as many as given."""
        ...

    def weights(self, slot: int) -> dict[str, Tensor]:
        """A copy of a slot's weights."""
        ...

    def parameters(self, slot: int) -> nn.ParameterList:
        """A slot's weights as parameters of their own: what changes them changes the slot."""
        ...

    def take_gradients(self, slots: Mapping[int, nn.ParameterList]) -> None:
        """Move the gradients of a backward pass to the parameters of these slots."""
        ...

    def write(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write a slot's weights into a folder, as safetensors."""
        ...

    def in_one_basis(
        self, start: Mapping[str, Any], reached: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Rewrite both sets so that adding them adds the whole weights of the models."""
        ...


class Learner(Protocol):
    """A model with everything needed to train it and to ask it."""

    module: nn.Module

    repetition: int
    """The repetition that its own draws belong to (attacks, fresh adapters)."""

    @property
    def slots(self) -> Slots | None:
        """None if the model's own weights are trained. Slot 0 is used if no slot is named."""
        ...

    def encode(self, samples: pa.Table) -> Examples:
        """Rows of a `samples` table as examples."""
        ...

    def nearest(self, samples: pa.Table, target: pa.Table, count: int) -> pa.Table:
        """The `count` rows most similar to the target, itself not counted, most similar first."""
        ...

    def random_answers(self, samples: pa.Table, draw: np.random.Generator) -> list[str]:
        """Meaningless answers of the same lengths, one for each row."""
        ...

    def merged(self) -> AbstractContextManager[nn.Module]:
        """The model as it would be deployed: the weights of slot 0 are merged into its layers.

        What is done to the model's weights inside is undone at the end, if it has slots.
        """
        ...

    def fit(self, examples: Any, rows: Sequence[int]) -> Fit:
        """Forward pass over some rows."""
        ...

    def terms_of_cells(
        self,
        forget: Any,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
        preferred: Mapping[int, int],
    ) -> TermsOfCells:
        """The terms of each unlearning step of some cells; slot i is cell i's, at its theta_0.

        A model without slots is that of the one cell 0.

        Args:
            forget: examples of which `rows[i]` are cell i's forget set.
            retaining: the cells that ask for retain terms.
            noises: of each cell; None for none.
            preferred: rows of `forget` with the answer that is preferred to another row's.
        """
        ...

    def reference(self, retain: Any, batches: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Per retain batch i, tensor str(i): what retain_kl compares with."""
        ...

    def evidence(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> Evidence:
        """What probes may ask of the model, as it is now, about these samples.

        Args:
            slot_of_row: whose weights answer; None: slot 0, or the model where there are no slots.
            drafts: answers that another state of the model gave to the samples. They may save
                time where the new answers are alike, and change no answer.
        """
        ...


@dataclass(frozen=True)
class RetainBatches:
    """Retain batches shared by all cells of a model and dose, with their reference."""

    examples: Any
    batches: Sequence[Sequence[int]]
    reference: Mapping[str, Tensor]
    """Of batch i under str(i), (N, V) log-probabilities at its answer tokens, row after row."""

    def without(self, gone: Collection[int]) -> RetainBatches:
        """The same batches without some rows; batches that become empty are dropped."""
        batches: list[Sequence[int]] = []
        reference: dict[str, Tensor] = {}
        for number, batch in enumerate(self.batches):
            stays = [row not in gone for row in batch]
            if any(stays):
                tokens = np.repeat(stays, self.examples.answer_sizes[list(batch)])
                reference[str(len(batches))] = self.reference[str(number)][tokens]
                batches.append([row for row, kept in zip(batch, stays, strict=True) if kept])
        return RetainBatches(self.examples, batches, reference)


@dataclass(frozen=True)
class Noise:
    """Noise on a hidden state in the passes over the forget set (paper Eq. 4)."""

    config: EnhancedConfig
    study_seed: int
    about: tuple[int | str, ...]
    """The topic of the draws; each step adds its number."""


class TermsOfStep(Protocol):
    """Gives the Terms of step i."""

    def __call__(self, step: int) -> Sequence[Terms]:
        """The Terms of each row of the forget set, computed when they are used."""
        ...


class TermsOfCells(Protocol):
    """Gives the Terms of step i, for several cells that share their forward passes."""

    def __call__(self, step: int, cells: Sequence[int]) -> Sequence[Sequence[Terms]]:
        """For each of these cells, what TermsOfStep returns."""
        ...


def terms_of_one(
    learner: Learner,
    forget: Any,
    retain: RetainBatches | None,
    noise: Noise | None = None,
    preferred: int = 0,
) -> TermsOfStep:
    """The terms of each unlearning step on one forget set; the model must be at theta_0.

    Args:
        preferred: that many rows at the end have the answers that are preferred to the others'.
    """
    count = len(forget.sizes) - preferred
    preferred_to = {row: count + row for row in range(preferred)}
    terms_of = learner.terms_of_cells(forget, [range(count)], retain, [0], [noise], preferred_to)
    return lambda step: terms_of(step, [0])[0]
