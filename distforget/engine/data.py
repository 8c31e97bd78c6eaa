"""Builds the similarity-entailed dataset with Ray Data: a task writes a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from distforget import schemas, selection
from distforget.plan import Plan, Step
from distforget.store import Store
from distforget.study import Study, UsageError
from distforget.tracks import track

ROWS_PER_SHARD = 50_000
"""Fixed, so that files are the same however many workers there are."""


def build_dataset(
    step: Step,
    study: Study,
    store: Store,
    workers: int | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> None:
    """Commit the dataset step: folder `samples/` of Parquet shards in the order of sample_id.

    Args:
        workers: tasks at once; None leaves it to Ray.

    Raises:
        UsageError: a row of the source is bad, or there are too few.
    """
    source, config = track(study.track), study.dataset
    table = source.read_rows(config, study.seed)
    total = source.total_rows(config) if table is None else len(table)
    if total == 0:
        raise UsageError("dataset: it has no rows; raise dataset.targets or dataset.others")
    utility = config.utility and source.utility_rows(config.utility, study.seed, total)
    shards = -(-total // rows_per_shard)
    shared = None if table is None else ray.put(table)

    def fill(folder: Path) -> None:
        (folder / "samples").mkdir()

        def write(rows: pa.Table, shard: int) -> None:
            name = pa.array([config.name] * len(rows), pa.string())
            path = folder / "samples" / f"{shard:06d}.parquet"
            schemas.write(rows.add_column(0, "dataset", name), "samples", path)

        def write_shard(batch: Any) -> Any:
            for shard in batch["id"]:
                first = int(shard) * rows_per_shard
                last = min(first + rows_per_shard, total)
                if shared is None:
                    rows = source.make_rows(range(first, last), config, study.seed)
                else:
                    rows = ray.get(shared).slice(first, last - first)
                write(rows, int(shard))
            return {"id": batch["id"]}

        blocks = ray.data.range(shards, override_num_blocks=shards)
        written = blocks.map_batches(write_shard, batch_size=1, concurrency=workers).count()
        assert written == shards
        if utility is not None:
            write(utility, shards)

    store.commit(step, fill)


def read_samples(step: Step, store: Store) -> pa.Table:
    """The dataset as one table, in the order of sample_id."""
    files = sorted((store.folder(step.key) / "samples").glob("*.parquet"))
    return pa.concat_tables(schemas.read(path, "samples") for path in files)


def check_metrics(plan: Plan, store: Store) -> None:
    """Look whether the study's metrics can see its samples.

    Raises:
        UsageError: a metric cannot; names file, row and fix.
    """
    samples = read_samples(plan.dataset, store)
    track(plan.study.track).check_metrics(plan.study, samples)


def check_nearest(plan: Plan, store: Store) -> None:
    """Look whether each dose trains on enough samples to unlearn k nearest ones and keep some.

    Raises:
        UsageError: an `enhanced.nearest` is too large for the dataset.
    """
    wanted = max((m.enhanced.nearest for m in plan.study.methods if m.enhanced), default=0)
    if not wanted:
        return
    samples = read_samples(plan.dataset, store)
    doses = sorted({step.about["dose"] for step in plan.finetunes})
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
