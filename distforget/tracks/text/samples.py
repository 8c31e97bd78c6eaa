"""Builds the rows of a text dataset from base samples and similar ones.

Ids 0 to T-1 are the targets; then come, role after role and in each role target after target, the
similar samples, the paraphrases and the neighbours; then the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from distforget.data import TextData
from distforget.sources import Reader, Wanted, source_of
from distforget.tracks.base import OpenData
from distforget.tracks.rows import from_base

ROLES = ("target", "similar", "paraphrase", "neighbour")


def open_data(data: TextData, seed: int) -> OpenData:
    """Read the source of a dataset.

    Raises:
        UsageError: a row is bad, or there are fewer than the study asks for.
    """
    source = source_of(data.source)
    assert source.read_texts is not None
    base = source.read_texts(data.source, Wanted(data.targets, data.neighbours, data.others), seed)
    similar = data.similar.per_target + data.similar.paraphrases
    first = data.targets * (1 + similar + data.neighbours)
    return OpenData(
        base.families,
        partial(_complete, base.families),
        [partial(_numbered, reader, first) for reader in base.others],
        first,
        first + data.others,
    )


def _complete(families: pa.Table, similar: pa.Table) -> pa.Table:
    """Targets, similar samples, paraphrases and neighbours in the order of their ids."""
    kept = families.filter(pc.is_in(families["role"], pa.array(["target", "neighbour"])))
    rows = pa.concat_tables([kept, similar])
    order = pc.index_in(rows["role"], pa.array(ROLES))
    number = pa.array(range(len(rows)))  # equal keys keep their order
    sorted_by = pa.table(
        [order, rows["target_index"], pc.fill_null(rows["similar_rank"], 0), number],
        ["role", "target", "rank", "number"],
    )
    keys = [(name, "ascending") for name in sorted_by.column_names]
    rows = rows.take(pc.sort_indices(sorted_by, keys))
    place = rows.schema.get_field_index("similar_rank")
    is_similar = pc.equal(rows["role"], "similar")
    rank = pc.if_else(is_similar, rows["similar_rank"], pa.scalar(None, pa.int32()))
    return from_base(rows.set_column(place, "similar_rank", rank), 0)


def _numbered(reader: Reader, first: int) -> Iterator[pa.Table]:
    tables: Callable[[], Iterator[pa.Table]] = reader.tables
    number = first + reader.first
    for table in tables():
        yield from_base(table, number)
        number += len(table)
