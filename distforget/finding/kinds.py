"""What is searched: texts or images; how they are read, embedded and compared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distforget.finding.embedders import EmbedderConfig

Floats = npt.NDArray[np.float32]
Embed = Callable[[pa.Table], pa.Table]
"""Adds the column `embedding`, and what the second measure needs, to rows."""


@dataclass(frozen=True)
class Kind:
    """Texts or images."""

    name: str
    embedded: str
    """Table of rows with their vectors."""
    found: str
    """Table of similar rows."""
    own: tuple[str, ...]
    """Columns of a row that are its own, beside its number."""
    second: str
    """The measure beside the cosine of the embeddings, a column of `found`."""
    least: float
    """Below it the second measure says nothing, however rare it is."""
    compared: tuple[str, ...]
    """Columns of `embedded` that it needs."""
    measure: Callable[[pa.Table, pa.Table], Floats]
    """From T targets and N rows, [N, T]; 1 for the same."""
    same: Callable[[Mapping[str, Any]], Hashable]
    """Equal for rows that are copies of each other."""
    origin: Callable[[EmbedderConfig, str], Mapping[str, Any]]
    """What of an embedder decides the vectors; the name of its option is for messages."""
    open: Callable[[EmbedderConfig, str], Embed]
    """Opens an embedder on a device, 'cpu' or 'cuda'."""
    embedder: str
    """The embedder that is used if none is named."""


class Data(Protocol):
    """Training data, or a forget list."""

    @property
    def path(self) -> str:
        """Where it lies."""

    @property
    def kind(self) -> Kind:
        """What it holds."""

    @property
    def named(self) -> Sequence[str]:
        """Names of the columns that are read."""

    def parts(self) -> Sequence[Data]:
        """Parts that can be read side by side."""

    def content(self) -> object:
        """What identifies it: digests of the files, or the hub's fingerprint."""

    def tables(self, first: int, most: int) -> Iterator[pa.Table]:
        """All rows in tables of `most`: sample_id, counted from `first`, and the kind's own.

        Raises:
            UsageError: a row is bad; names file, row and fix.
        """

    def targets(self) -> list[tuple[str, dict[str, Any]]]:
        """The rows of a forget list with their ids.

        Raises:
            UsageError: a row is bad, or there is none.
        """

    def check_fits(self, forget: Data) -> None:
        """Check that its rows can be compared with those of a forget list.

        Raises:
            UsageError: they cannot.
        """


def rows_of(targets: Sequence[tuple[str, Mapping[str, Any]]], kind: Kind) -> pa.Table:
    """The targets' own columns as a table."""
    return pa.Table.from_pylist([{name: row[name] for name in kind.own} for _, row in targets])


def with_vectors(rows: pa.Table, vectors_ND: Floats) -> pa.Table:
    """These rows with the column `embedding`."""
    flat = pa.array(vectors_ND.astype("float16").ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
    return rows.append_column("embedding", lists.cast(pa.list_(pa.float16())))
