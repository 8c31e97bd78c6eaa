"""What a track (text, image) offers to the frame; the frame knows tracks only through this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from distforget.methods.base import Terms

if TYPE_CHECKING:
    from torch import Tensor, nn


class Examples(Protocol):
    """Encoded samples, ready to be put into batches."""

    sizes: np.ndarray
    """(N,) cost of a row in padded batches (text: tokens)."""
    answer_sizes: np.ndarray
    """(N,) answer tokens of a row: what losses are averaged over."""


@dataclass(frozen=True)
class Fit:
    """Sums over a micro-batch: they add up over any split of the global batch."""

    nll_sum: Tensor
    answer_tokens: int
    correct_tokens: int
    exact_rows: int


class Learner(Protocol):
    """A model with all that is needed to teach, ask and score it in its track."""

    module: nn.Module

    def encode(self, samples: pa.Table) -> Examples:
        """Rows of a `samples` table as examples."""
        ...

    def fit(self, examples: Any, rows: Sequence[int]) -> Fit:
        """Forward pass over some rows."""
        ...

    def terms(self, forget: Any, retain: RetainBatches | None) -> TermsOfStep:
        """The terms of each unlearning step on a forget set; the model must be at theta_0."""
        ...

    def reference(self, retain: Any, batches: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Per retain batch i, tensor str(i): what retain_kl compares with."""
        ...

    def ask(
        self, samples: pa.Table, drafts: Sequence[str] | None = None
    ) -> tuple[list[str], list[int]]:
        """Answers to samples and their lengths in tokens, in the order of the rows.

        Args:
            drafts: answers that another state of the model gave to the samples. They may save
                time where the new answers are alike, and change no answer.
        """
        ...

    def score(self, answers: Sequence[str], samples: pa.Table) -> Mapping[str, np.ndarray]:
        """(N,) float64 per metric: the answers against the samples' true ones."""
        ...


@dataclass(frozen=True)
class RetainBatches:
    """Retain batches shared by all cells of a model and dose, with their reference."""

    examples: Any
    batches: Sequence[Sequence[int]]
    reference: Mapping[str, Tensor]


class TermsOfStep(Protocol):
    """Gives the Terms of step i."""

    def __call__(self, step: int) -> Terms:
        """Fresh terms: nothing is computed before it is asked for."""
        ...
