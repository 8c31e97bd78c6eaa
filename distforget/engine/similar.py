"""Searches embedded data for samples that are similar to those of a forget list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from distforget import schemas
from distforget.engine.cluster import connected, resources
from distforget.engine.embedding import embedded, embedding_step, sample
from distforget.errors import UsageError
from distforget.finding.chance import Chance, chance
from distforget.finding.embedders import EmbedderConfig
from distforget.finding.kinds import Data, Floats, Kind, rows_of
from distforget.finding.search import Query, clusters, merged, search, vectors
from distforget.placement import Placement
from distforget.remote import open_store

RANDOM_ROWS = 4_000
"""Rows that show how similar random rows are to a target."""
LEAST_ROWS = 50
SEED = 0
"""Of that draw: the same data gives the same cuts."""


@dataclass(frozen=True)
class Wish:
    """What is to be found."""

    embedder: EmbedderConfig
    most: int = 100
    """At most so many samples of each target by cosine, and by the second measure."""
    by_chance: float = 0.5
    """Samples of each target that may be found by chance, as expected; sets the cuts."""
    cut: float = 0.0
    """Cosine from which a sample is similar; 0: follows from `by_chance`."""
    others: int = 200
    """Random rows to be had beside, which are similar to no target."""


@dataclass(frozen=True, eq=False)
class Found:
    """Similar samples, and what they are to be judged by."""

    kind: Kind
    similar: pa.Table
    """Table `similar` or `similar_images`."""
    nearest: Sequence[dict[str, Any]]
    """The nearest other sample of each target, similar or not: as rows of the table."""
    targets: Sequence[tuple[str, dict[str, Any]]]
    """Id and own columns of each."""
    rows: int
    random_RT: Floats
    """Cosine of random rows to each target."""
    chances: Sequence[tuple[Chance, Chance]]
    """Of cosine and second measure, for each target."""
    cuts_T2: Floats
    """Cosine and second measure from which a row is similar to a target."""
    counts: npt.NDArray[np.int64]
    """Samples at least as similar to a target as each of `search.LEVELS`, copies included, [L]."""
    others: Sequence[dict[str, Any]]
    """Random rows that are similar to no target: sample_id and own columns."""


def find(
    data: Data,
    forget: Data,
    wish: Wish,
    placement: Placement,
    told: Callable[[str], None],
) -> Found:
    """Embed the data, unless it is embedded already, and search it.

    Raises:
        UsageError: data, forget list or embedder are bad.
    """
    data.check_fits(forget)
    kind, targets = data.kind, forget.targets()
    step = embedding_step(data, wish.embedder, "--embedder")
    asked = kind.open(wish.embedder, "cpu")(rows_of(targets, kind))
    store = open_store(placement.store)
    store.check_writable()
    with connected(placement):
        files = embedded(step, data, wish.embedder, placement, store, told)
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        if rows < LEAST_ROWS:
            raise UsageError(
                f"{data.path}: it has {rows} rows; --train-data needs {LEAST_ROWS} to show how "
                "similar random rows are"
            )
        random = sample(files, ["embedding", *kind.compared], RANDOM_ROWS, SEED)
        cosine_RT, second_RT = vectors(random) @ vectors(asked).T, kind.measure(asked, random)
        chances = [
            (chance(cosines, rows), chance(seconds, rows))
            for cosines, seconds in zip(cosine_RT.T, second_RT.T, strict=True)
        ]
        share = wish.by_chance / 2 / rows
        cuts = [(wish.cut or c.cut(share), max(kind.least, s.cut(share))) for c, s in chances]
        cuts_T2 = np.asarray(cuts, np.float32)
        # One more than is wanted by each: the target itself is found, too.
        query = Query(asked, kind.measure, cuts_T2, wish.most + 1)
        told(f"searching {rows:,} rows for {len(targets)} targets")
        hits, counts_LT = merged(_search(files, kind, query), query)
    ranked = _ranked(hits, files, kind, targets, chances, rows)
    others = _others(files, kind, wish.others, set(hits["sample_id"].to_pylist()))
    return Found(
        kind=kind,
        similar=_similar(ranked, kind, cuts),
        nearest=[row for mine in ranked for row in [r for r in mine if not r["copy"]][:1]],
        targets=targets,
        rows=rows,
        random_RT=cosine_RT,
        chances=chances,
        cuts_T2=cuts_T2,
        counts=counts_LT.sum(axis=1),
        others=others,
    )


def _similar(
    ranked: Sequence[Sequence[dict[str, Any]]], kind: Kind, cuts: Sequence[tuple[float, float]]
) -> pa.Table:
    """The table of similar samples: the rows beyond the cuts, grouped and numbered."""
    found = []
    for mine, (cut, second_cut) in zip(ranked, cuts, strict=True):
        kept = [row for row in mine if row["cosine"] >= cut or row[kind.second] >= second_cut]
        groups = clusters(np.stack([row["vector"] for row in kept]), cut) if kept else []
        found += [
            {**row, "cluster": group, "rank": rank}
            for rank, (row, group) in enumerate(zip(kept, groups, strict=True), 1)
        ]
    names = schemas.arrow_schema(kind.found).names
    return schemas.from_rows(kind.found, [{n: row[n] for n in names} for row in found])


def _search(files: Sequence[Path], kind: Kind, query: Query) -> list[pa.Table]:
    """What each shard has, searched in parallel."""
    kept = ray.put(query)

    def searched(block: pa.Table) -> pa.Table:
        return search(block, ray.get(kept))

    columns = ["sample_id", "embedding", *kind.compared]
    blocks = min(len(files), max(4 * int(resources()["CPU"]), len(files) // 32))
    rows = ray.data.read_parquet(
        list(map(str, files)), columns=columns, override_num_blocks=blocks
    ).map_batches(searched, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    return [table for table in ray.get(rows.to_arrow_refs()) if len(table)]


def _ranked(
    hits: pa.Table,
    files: Sequence[Path],
    kind: Kind,
    targets: Sequence[tuple[str, dict[str, Any]]],
    chances: Sequence[tuple[Chance, Chance]],
    rows: int,
) -> list[list[dict[str, Any]]]:
    """The hits of each target as rows of the table, least expected by chance first."""
    known = _fetched(files, kind, pc.unique(hits["sample_id"]))
    own = [kind.same(row) for _, row in targets]
    found: list[list[dict[str, Any]]] = [[] for _ in targets]
    for hit in hits.to_pylist():
        number, row = hit.pop("target"), known[hit["sample_id"]]
        of_cosine, of_second = chances[number]
        second = hit.pop("second")
        rarer = min(of_cosine.share(hit["cosine"]), of_second.share(second))
        mine = kind.same(row)
        found[number].append(
            {
                **hit,
                **row,
                kind.second: second,
                "target_id": targets[number][0],
                "expected": 2 * rows * float(rarer),
                "copy": mine == own[number],
                "requested": mine in own and mine != own[number],
            }
        )
    for ranking in found:
        ranking.sort(key=lambda row: (not row["copy"], row["expected"], row["sample_id"]))
    return found


def _others(
    files: Sequence[Path], kind: Kind, wanted: int, similar: set[int]
) -> list[dict[str, Any]]:
    """Random rows other than the similar ones."""
    drawn = sample(files, ["sample_id"], 2 * wanted + len(similar), SEED + 1)
    chosen = [n for n in drawn["sample_id"].to_pylist() if n not in similar][:wanted]
    known = _fetched(files, kind, pa.array(chosen, pa.int64()))
    return [{"sample_id": n, **{name: known[n][name] for name in kind.own}} for n in chosen]


def _fetched(files: Sequence[Path], kind: Kind, ids: pa.Array) -> dict[int, dict[str, Any]]:
    """What some rows say, and their vectors."""
    wanted = np.sort(ids.to_numpy())
    firsts = np.asarray([int(file.stem) for file in files])
    shards = np.searchsorted(firsts, wanted, side="right") - 1
    found = {}
    for shard in np.unique(shards):
        names = ["sample_id", *kind.own]
        table = pq.read_table(files[shard], columns=[*names, "embedding"])
        table = table.filter(pc.is_in(table["sample_id"], pa.array(wanted[shards == shard])))
        for row, vector in zip(table.select(names).to_pylist(), vectors(table), strict=True):
            found[row.pop("sample_id")] = {**row, "vector": vector}
    return found
