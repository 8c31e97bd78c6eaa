"""Exact search: each shard gives its rows most similar to each target; then they are ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from distforget.finding.kinds import Floats

LEVELS = np.linspace(0.3, 1.0, 15)
"""Cosines at which rows are counted: 0.30, 0.35, ..., 1.00."""

NEAREST = 3
"""Rows of each target that are told of, similar or not."""

HITS = pa.schema(
    [
        ("target", pa.int32()),
        ("sample_id", pa.int64()),
        ("cosine", pa.float32()),
        ("second", pa.float32()),
    ]
)


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for, and which rows count as found."""

    targets: pa.Table
    """With their vectors and what the second measure needs."""
    measure: Callable[[pa.Table, pa.Table], Floats]
    """The second measure; see `Kind.measure`."""
    cuts_T2: Floats
    """Cosine, and second measure, from which a row is found whatever the other is."""
    most: int
    """At most so many rows by each of the two are found for a target."""


def vectors(table: pa.Table) -> Floats:
    """The column `embedding` of a table as float32 [N, D]."""
    column = table["embedding"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    found: Floats = column.flatten().to_numpy().astype(np.float32).reshape(len(table), -1)
    return found


def search(shard: pa.Table, query: Query) -> pa.Table:
    """Rows of a shard that are found, and the `NEAREST` to each target, found or not.

    Returns:
        One row: columns of `HITS` as lists, and `counts`, rows at least as similar as each of
        `LEVELS`, by target.
    """
    # Vectors in float16 are a little longer or shorter than 1.
    cosine_NT = np.minimum(vectors(shard) @ vectors(query.targets).T, 1.0)
    second_NT = query.measure(query.targets, shard)
    picked = set()
    for scores_NT, cut_T in zip((cosine_NT, second_NT), query.cuts_T2.T, strict=True):
        for target in range(scores_NT.shape[1]):
            rows = _largest(scores_NT[:, target], query.most)
            picked |= {(target, int(row)) for row in rows[scores_NT[rows, target] >= cut_T[target]]}
    picked |= {
        (target, int(row))
        for target in range(cosine_NT.shape[1])
        for row in _largest(cosine_NT[:, target], NEAREST)
    }
    pairs = np.asarray(sorted(picked), np.int64).reshape(-1, 2)
    targets, rows = pairs[:, 0], pairs[:, 1]
    ids = shard["sample_id"].to_numpy()
    counts_LT = [(cosine_NT >= level).sum(axis=0) for level in LEVELS]
    found = {
        "target": targets.astype(np.int32),
        "sample_id": ids[rows],
        "cosine": cosine_NT[rows, targets],
        "second": second_NT[rows, targets],
        "counts": np.concatenate(counts_LT),
    }
    return pa.table({name: pa.array([values]) for name, values in found.items()})


def merged(shards: Sequence[pa.Table], query: Query) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """What all shards gave together.

    Returns:
        The rows that are found and the `NEAREST` to each target, as a table of `HITS`; and the
        counts at each of `LEVELS`, [L, T].
    """
    table = pa.concat_tables(shards)
    hits = pa.table([table[name].combine_chunks().flatten() for name in HITS.names], HITS.names)
    target, cosine = hits["target"].to_numpy(), hits["cosine"].to_numpy()
    second = hits["second"].to_numpy()
    kept: list[int] = []
    for number, cuts in enumerate(query.cuts_T2):
        mine = np.flatnonzero(target == number)
        picked = set(mine[_largest(cosine[mine], NEAREST)].tolist())
        for scores, cut in zip((cosine, second), cuts, strict=True):
            best = mine[_largest(scores[mine], query.most)]
            picked |= set(best[scores[best] >= cut].tolist())
        kept += sorted(picked)
    counts = np.stack([row.as_py() for row in table["counts"]]).sum(axis=0)
    return hits.take(kept).cast(HITS), counts.reshape(len(LEVELS), -1)


def _largest(scores: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.int64]:
    """Places of the largest scores, at most `count`, in any order."""
    if count >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(-scores, count)[:count]


def clusters(vectors_ND: Floats, cut: float) -> list[int]:
    """Groups rows found for one target that are similar to each other (average linkage).

    Two groups are one if the mean cosine of their rows lies nearer to 1 than to the cut.

    Returns:
        A number for each row, from 1, in the order of the rows.
    """
    if len(vectors_ND) < 2:
        return [1] * len(vectors_ND)
    distance = np.clip(1 - vectors_ND @ vectors_ND.T, 0, 2)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    raw = fcluster(tree, (1 - cut) / 2, "distance").tolist()
    order = {number: place for place, number in enumerate(dict.fromkeys(raw), 1)}
    return [order[number] for number in raw]
