"""Embeds all rows of some data with Ray Data; what is embedded once is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.exceptions import RayError

from distforget import schemas
from distforget.attempts import StoreError
from distforget.engine.cluster import resources, uses_gpu
from distforget.engine.data import WRONG, ReadBy
from distforget.errors import UsageError
from distforget.finding.embedders import EmbedderConfig
from distforget.finding.kinds import Data, Kind
from distforget.placement import Placement
from distforget.plan import Step
from distforget.store import Store

ROWS_PER_SHARD = {"cpu": 1_024, "cuda": 16_384}
"""Rows that are embedded at once and kept in one file; what is lost if a worker dies."""
ROWS_AT_ONCE = 1_024
BLOCK_BYTES = 2**18
SECONDS_PER_LINE = 5.0

Span = tuple[int, int]
"""First row and number of rows."""


def embedding_step(data: Data, embedder: EmbedderConfig, field: str) -> Step:
    """The step that embeds this data.

    Raises:
        UsageError: data or embedder are not there.
    """
    config = {
        "data": data.content(),
        "columns": data.named,
        "embedder": data.kind.origin(embedder, field),
    }
    return Step("embeddings", config, about={"data": data.path})


def embedded(
    step: Step,
    data: Data,
    embedder: EmbedderConfig,
    placement: Placement,
    store: Store,
    told: Callable[[str], None],
) -> list[Path]:
    """The shards of table `embeddings`; rows that were embedded before are not embedded again.

    Raises:
        UsageError: a row is bad (found before anything is embedded), or the embedder is.
    """
    if not store.is_done(step.key):
        with store.claim(step.key, lambda: told("another run embeds this data; waiting for it")):
            if not store.is_done(step.key):
                _embed_all(step, data, embedder, placement, store, told)
    return sorted(store.folder(step.key).glob("*.parquet"))


def _embed_all(
    step: Step,
    data: Data,
    embedder: EmbedderConfig,
    placement: Placement,
    store: Store,
    told: Callable[[str], None],
) -> None:
    """Embed what is missing and commit the step; lost workers are replaced."""
    parts = data.parts()
    sizes = _sizes(parts)
    told(f"{data.path}: {sum(sizes):,} rows, all readable")
    for left in reversed(range(placement.retries + 1)):
        try:
            _embed(data.kind, parts, sizes, (store, step.key), embedder, placement, told)
            break
        except RayError as error:
            if not left:
                raise StoreError(
                    f"{data.path}: embedding failed ({' '.join(str(error).split())[-200:]}); "
                    "what is embedded is kept, so the same command goes on from there"
                ) from error
            told("a worker was lost; going on with the rows that are not embedded yet")
    have = sorted(store.work(step.key).glob("*.parquet"))
    store.commit(step, lambda folder: _moved(have, folder))
    store.drop_work(step.key)


def _sizes(parts: Sequence[Data]) -> list[int]:
    """Number of rows of each part; all are read and checked."""

    @ray.remote(num_cpus=1)
    def count(part: Data) -> int | str:
        try:
            return sum(map(len, part.tables(0, ROWS_AT_ONCE)))
        except UsageError as error:  # Ray would wrap it
            return str(error)

    sizes = []
    for found in ray.get([count.remote(part) for part in parts]):
        if isinstance(found, str):
            raise UsageError(found)
        sizes.append(found)
    return sizes


def _embed(
    kind: Kind,
    parts: Sequence[Data],
    sizes: Sequence[int],
    work: tuple[Store, str],
    embedder: EmbedderConfig,
    placement: Placement,
    told: Callable[[str], None],
) -> None:
    store, key = work
    spans = _spans(store.work(key))
    total, before = sum(sizes), sum(count for _, count in spans)
    if total == before:
        return
    firsts = accumulate(sizes[:-1], initial=0)
    readers = [_Reading(part, first, spans) for part, first in zip(parts, firsts, strict=True)]
    gpu = uses_gpu(placement)
    at_once = int(resources()["GPU" if gpu else "CPU"])
    device = "cuda" if gpu else "cpu"
    each = ROWS_PER_SHARD[device]
    at_once = min(at_once, -(-(total - before) // each))
    with _small_blocks():
        # Reading is little work; it must not wait for a core that an actor holds.
        read = ray.data.read_datasource(
            ReadBy(readers), override_num_blocks=len(readers), ray_remote_args={"num_cpus": 0}
        )
    rows = read.map_batches(
        _Embedding,
        fn_constructor_args=(kind, embedder, store, key, device),
        batch_size=each,
        batch_format="pyarrow",
        concurrency=(1, at_once),
        num_gpus=1 if gpu else None,
        num_cpus=0 if gpu else 1,
        max_restarts=0,
    )
    began = last = time.monotonic()
    done = 0
    for row in rows.iter_rows():
        if row[WRONG]:
            raise UsageError(row[WRONG])
        done += row["rows"]
        now = time.monotonic()
        if now - last > SECONDS_PER_LINE or before + done == total:
            last, rate = now, done / (now - began)
            left = (total - before - done) / rate / 60
            rest = f", about {left:.0f} min left" if left >= 1 else ""
            told(f"embedded {before + done:,} of {total:,} rows, {rate:,.0f} a second{rest}")


@contextmanager
def _small_blocks() -> Iterator[None]:
    """Lets actors begin on the first rows of a file while it is still being read."""
    context = ray.data.DataContext.get_current()
    before, context.target_max_block_size = context.target_max_block_size, BLOCK_BYTES
    try:
        yield
    finally:
        context.target_max_block_size = before


def _spans(work: Path) -> list[Span]:
    """The rows that lie in `work` already."""
    found = []
    for path in work.glob("*.parquet"):
        first, count = path.stem.split("-")
        found.append((int(first), int(count)))
    return sorted(found)


def _moved(files: Sequence[Path], folder: Path) -> None:
    for file in files:
        (folder / f"{file.stem.split('-')[0]}.parquet").hardlink_to(file)


class _Reading:
    """Reads the rows of a part that are not embedded yet, as tables."""

    def __init__(self, part: Data, first: int, spans: Sequence[Span]) -> None:
        self.part, self.first, self.spans = part, first, spans

    def __call__(self) -> Iterator[pa.Table]:
        firsts = np.asarray([first for first, _ in self.spans], np.int64)
        ends = np.asarray([0, *(first + count for first, count in self.spans)], np.int64)
        for table in self.part.tables(self.first, ROWS_AT_ONCE):
            ids = table["sample_id"].to_numpy()
            there = ids < ends[np.searchsorted(firsts, ids, side="right")]
            if not there.all():
                yield table.filter(pa.array(~there))


class _Embedding:
    """Embeds a block of rows and keeps it; runs in an actor."""

    def __init__(
        self, kind: Kind, embedder: EmbedderConfig, store: Store, key: str, device: str
    ) -> None:
        self.wrong = ""
        self.store, self.key, self.table = store, key, kind.embedded
        try:
            self.embed = kind.open(embedder, device)
        except UsageError as error:  # Ray would wrap it
            self.wrong = str(error)

    def __call__(self, block: pa.Table) -> pa.Table:
        if not self.wrong:
            self._keep(block)
        return pa.table({"rows": [len(block)], WRONG: [self.wrong]})

    def _keep(self, block: pa.Table) -> None:
        table = self.embed(block)
        ids = block["sample_id"].to_pylist()
        # A block after a restart may have gaps: each file holds rows without one.
        starts = [0, *(i for i in range(1, len(ids)) if ids[i] != ids[i - 1] + 1), len(ids)]
        for start, end in pairwise(starts):
            name = f"{ids[start]:012d}-{end - start}.parquet"
            path = self.store.work_file(self.key, name)
            schemas.write(table.slice(start, end - start), self.table, path)
            self.store.keep(path)


def sample(files: Sequence[Path], columns: Sequence[str], rows: int, seed: int) -> pa.Table:
    """About so many rows, drawn from files that are drawn."""
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(files))[:32]
    each = -(-rows // len(chosen))
    parts = []
    for number in chosen:
        table = pq.read_table(files[number], columns=list(columns))
        parts.append(table.take(np.sort(random.permutation(len(table))[:each])))
    return pa.concat_tables(parts)
