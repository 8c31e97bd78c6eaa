"""Builds the dataset with Ray Data: read, make similar samples, check, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data.block import BlockAccessor, BlockMetadata

from distforget import schemas, selection
from distforget.engine.models import model_folder
from distforget.engine.rewriting import rewritten
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.plan import Plan, Step
from distforget.selection import refuse_blind_probes
from distforget.similarity import similarity_of
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import questions_of, track

ROWS_PER_SHARD = 50_000
WRONG = "what is wrong"
"""Column of a table that carries an error message out of a Ray task."""


def build_dataset(
    step: Step,
    study: Study,
    store: Store,
    workers: int | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    told: Callable[[str], None] = print,
) -> None:
    """Commit the dataset step: folder `samples/` of Parquet shards.

    The rows are the same however many workers there are; which shard a row lies in may differ.

    Args:
        workers: tasks at once; None leaves it to Ray.
        rows_per_shard: at least; the last shard may have fewer.
        told: called with a line about the progress, if a model writes the similar samples.

    Raises:
        UsageError: a row of the source is bad, or there are too few.
    """
    data = study.data
    opened = track(study.track).open_data(data, study.seed)
    completions, rewrites = None, None
    if "completions" in step.inputs:
        completions, rewrites = rewritten(step, opened.families, study, store, told)
        make = similarity_of(data.similar).make
        similar = make(opened.families, data.similar, study.seed, rewrites)
    else:
        similar = _similar(opened.families, data.similar, study.seed, workers)
    complete = opened.complete(similar)
    fewer = opened.first - len(complete)  # similar samples than were asked for
    parts = [ray.data.from_arrow(complete)]
    if opened.rest:
        readers = [partial(_moved, reader, fewer) for reader in opened.rest]
        tasks = len(readers)
        at_once = workers and min(workers, tasks)
        parts.append(
            ray.data.read_datasource(
                ReadBy(readers), concurrency=at_once, override_num_blocks=tasks
            )
        )
    of_probes = questions_of(study, opened.rows - fewer)
    if len(of_probes):
        parts.append(ray.data.from_arrow(of_probes))

    def named(rows: pa.Table) -> pa.Table:
        name = pa.array([data.name] * len(rows), pa.string())
        return schemas.check(rows.add_column(0, "dataset", name), "samples", "the dataset")

    def fill(folder: Path) -> None:
        (folder / "samples").mkdir()
        rows = parts[0].union(*parts[1:]) if len(parts) > 1 else parts[0]
        rows = rows.map_batches(named, batch_format="pyarrow", zero_copy_batch=True)
        rows.write_datasink(_Shards(folder / "samples", rows_per_shard))
        if completions is not None and rewrites is not None:
            schemas.write(completions, "completions", folder / "completions.parquet")
            table = schemas.from_rows("rewrites", rewrites)
            schemas.write(table, "rewrites", folder / "rewrites.parquet")

    store.commit(step, fill)


def _similar(families: pa.Table, config: Part, seed: int, workers: int | None) -> pa.Table:
    """The similar samples of all families.

    Raises:
        UsageError: they cannot be made; says what to mend.
    """
    make = similarity_of(config).make

    def made(family: pa.Table) -> pa.Table:
        try:
            return make(family, config, seed)
        except UsageError as error:  # Ray would wrap it, and print where it was raised
            return pa.table({WRONG: [str(error)]})

    whose = families["target_index"].unique()
    each = [families.filter(pc.equal(families["target_index"], index)) for index in whose]
    rows = ray.data.from_arrow(each).map_batches(
        made, batch_size=None, batch_format="pyarrow", concurrency=workers
    )
    blocks = [block for block in ray.get(rows.to_arrow_refs()) if len(block)]
    for block in blocks:
        if WRONG in block.column_names:
            raise UsageError(block[WRONG][0].as_py())
    return pa.concat_tables(blocks) if blocks else make(families.slice(0, 0), config, seed)


def _moved(reader: Callable[[], Iterator[pa.Table]], fewer: int) -> Iterator[pa.Table]:
    """The tables of a reader with smaller sample ids, since an id is a position."""
    for table in reader():
        ids = pc.subtract(table["sample_id"], fewer)
        yield table.set_column(table.schema.get_field_index("sample_id"), "sample_id", ids)


class ReadBy(ray.data.Datasource):
    """Reads tables with functions that yield them, each in a task of its own."""

    def __init__(self, readers: Sequence[Callable[[], Iterator[pa.Table]]]) -> None:
        self.readers = readers

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known before reading."""
        return None

    def get_read_tasks(self, *wishes: Any, **more: Any) -> list[ray.data.ReadTask]:
        """One task for each reader; it yields the reader's tables as blocks."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None)
        return [ray.data.ReadTask(reader, unknown) for reader in self.readers]


class _Shards(ray.data.Datasink[None]):
    """Writes blocks as durable Parquet files named after their first sample."""

    def __init__(self, folder: Path, rows_per_shard: int) -> None:
        self.folder = folder
        self.rows_per_shard = rows_per_shard

    @property
    def min_rows_per_write(self) -> int:
        """Blocks are concatenated until they have this many rows."""
        return self.rows_per_shard

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        """Write these blocks as one file."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        rows = pa.concat_tables(table for table in tables if len(table))
        first = pc.min(rows["sample_id"]).as_py()
        schemas.write(rows, "samples", self.folder / f"{first:09d}.parquet")


def read_samples(step: Step, store: Store) -> pa.Table:
    """The dataset as one table, in the order of sample_id."""
    files = sorted((store.folder(step.key) / "samples").glob("*.parquet"))
    return pa.concat_tables(schemas.read(path, "samples") for path in files).sort_by("sample_id")


def check_metrics(plan: Plan, store: Store) -> None:
    """Check that the study's metrics can tell right answers from wrong ones.

    Raises:
        UsageError: a metric cannot; names file, row and fix.
    """
    refuse_blind_probes(plan.study, read_samples(plan.dataset, store))


def doubts(plan: Plan, store: Store) -> list[str]:
    """Problems of the dataset that may falsify the study or end it late, one line each."""
    folders = {step.about["model"]: model_folder(step, store) for step in plan.models}
    samples = read_samples(plan.dataset, store)
    found: list[str] = track(plan.study.track).doubts_about(plan.study, samples, folders)
    return found


def check_nearest(plan: Plan, store: Store) -> None:
    """Check that each dose trains on enough samples to unlearn the k nearest and keep some.

    Raises:
        UsageError: an `enhanced.nearest` is too large for the dataset.
    """
    wanted = max((m.enhanced.nearest for m in plan.study.methods if m.enhanced), default=0)
    if not wanted:
        return
    samples = read_samples(plan.dataset, store)
    doses = sorted(plan.study.dose_numbers())
    trained = {dose: len(selection.training_rows(samples, dose)) for dose in doses}
    dose = min(doses, key=trained.__getitem__)
    if wanted > trained[dose] - 2:
        raise UsageError(
            f"methods: enhanced.nearest {wanted}: with dose {dose} the model is trained on "
            f"{trained[dose]} samples; take at most {trained[dose] - 2}, so that one is kept"
        )


def shards_of(step: Step, store: Store) -> ray.data.Dataset:
    """The dataset's shards as a Ray Dataset, for training workers to stream."""
    files = sorted(map(str, (store.folder(step.key) / "samples").glob("*.parquet")))
    return ray.data.read_parquet(files, override_num_blocks=len(files))
