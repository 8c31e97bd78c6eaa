"""Reads a language model's evidence back from its stored answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from distforget.probes import OF_TOKENS, Tokens, free_answers
from distforget.rouge import need_unicode_words


@dataclass(frozen=True)
class StoredEvidence:
    """Implements `probes.TextEvidence` without a model."""

    samples: pa.Table
    table: pa.Table
    """Rows of `answers`, one a sample."""
    dataset: pa.Table
    """All samples of the study."""

    @cached_property
    def other_scripts(self) -> bool:
        """See `probes.TextEvidence`; looked for only when a probe asks."""
        return need_unicode_words(free_answers(self.dataset))

    def answers(self) -> list[str]:
        """See `probes.Evidence`."""
        found: list[str] = self.table["answer"].to_pylist()
        return found

    def answer_sizes(self) -> list[int]:
        """See `probes.Evidence`."""
        found: list[int] = self.table["answer_tokens"].to_pylist()
        return found

    def wrong_logprobs(self) -> list[np.ndarray | None]:
        """See `probes.Evidence`."""
        return [
            None if values is None else np.asarray(values, np.float32)
            for values in self.table["wrong_logprobs"].to_pylist()
        ]

    def drawn_answers(self) -> list[list[str] | None]:
        """See `probes.Evidence`."""
        found: list[list[str] | None] = self.table["drawn_answers"].to_pylist()
        return found

    def tokens(self) -> list[Tokens | None]:
        """See `probes.Evidence`."""
        columns = [self.table[name].to_pylist() for name in OF_TOKENS]
        return [
            None
            if logprobs is None
            else Tokens(*(np.asarray(values, np.float32) for values in (logprobs, *more)))
            for logprobs, *more in zip(*columns, strict=True)
        ]
