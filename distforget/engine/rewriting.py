"""Has targets rephrased with Ray Data; completions are kept as they come."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from distforget import schemas
from distforget.attempts import StoreError
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.plan import Step
from distforget.similarity import Asks, similarity_of
from distforget.store import Store
from distforget.study import Study


class RequestsFailedError(StoreError):
    """Some requests failed after all tries (exit code 1); the same command sends them again."""


ROWS_PER_SHARD = 4
"""Completions that are kept in one file while they come; what is lost if a worker dies."""
REQUEST = ("target_index", "part", "number")
FILE = "completions.parquet"
KEY = "key"
"""Column of the requests: where their completions are kept while they come."""


def rewritten(
    step: Step, families: pa.Table, study: Study, store: Store, told: Callable[[str], None]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Completions of all rounds and the rewrites that come of them.

    Targets with too few usable rewrites are asked for more, in further rounds.

    Args:
        step: the dataset step; its input `completions` is the first round.
        told: called with a line about the progress.

    Raises:
        UsageError: the writer cannot be asked.
        RequestsFailedError: requests failed after all tries.
    """
    config = study.data.similar
    asks = similarity_of(config).asks
    assert asks is not None  # the plan gives completions to no other similarity
    first = step.inputs["completions"]
    sought = [(first, asks.requests(families, config, study.seed, 0))]
    completions = _fetched(sought, asks, config, store, told)
    rewrites = asks.rewrites(families, config, completions)
    for round in range(1, 1 + getattr(config, "rounds", 0)):
        short = asks.too_few(config, rewrites)
        if not short:
            break
        told(f"{len(short)} targets have too few usable restatements: asking for more")
        sought = []
        for target in sorted(short):  # each by itself: which others are short is no matter
            again = {**first.config, "round": round, "target": target}
            mine = families.filter(pc.equal(families["target_index"], target))
            requests = asks.requests(mine, config, study.seed, round)
            sought.append((replace(first, config=again, inputs={"before": first}), requests))
        more = _fetched(sought, asks, config, store, told)
        completions = pa.concat_tables([completions, more])
        rewrites = asks.rewrites(families, config, completions)
    told(summary(rewrites))
    return completions, rewrites


def summary(rewrites: Sequence[dict[str, Any]]) -> str:
    """How many rewrites are usable, and how many were dropped for each reason."""
    counts: dict[str, int] = {}
    for row in rewrites:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    usable = counts.pop("", 0)
    dropped = ", ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda c: -c[1])
    )
    return f"restatements: {usable} of {len(rewrites)} usable" + (
        f"; dropped: {dropped}" if dropped else ""
    )


def _fetched(
    sought: Sequence[tuple[Step, pa.Table]],
    asks: Asks[Any],
    config: Part,
    store: Store,
    told: Callable[[str], None],
) -> pa.Table:
    """Table `completions` of some steps, each with its requests; only what is missing is sent."""
    new = [(step, wanted) for step, wanted in sought if not store.is_done(step.key)]
    missing = [_missing(wanted, store.work(step.key)) for step, wanted in new]
    keys = [step.key for step, _ in new]
    _ask(missing, keys, store, asks, config, told, sum(len(wanted) for _, wanted in new))
    works = [store.work(key) for key in keys]
    left = [_missing(wanted, work) for (_, wanted), work in zip(new, works, strict=True)]
    if any(map(len, left)):
        lacking = pa.concat_tables(left)
        raise RequestsFailedError(
            f"data.similar: {len(lacking)} of {sum(len(wanted) for _, wanted in new)} requests "
            f"failed after all tries, e.g. for target {lacking['target_index'][0]}; the "
            "completions that came are kept, so the same command asks for the missing ones alone"
        )
    for (step, _), work in zip(new, works, strict=True):
        table = _there(work).sort_by([(name, "ascending") for name in REQUEST])
        store.commit(step, partial(_write, table))
    return pa.concat_tables(
        schemas.read(store.folder(step.key) / FILE, "completions") for step, _ in sought
    )


def _write(table: pa.Table, folder: Path) -> None:
    schemas.write(table, "completions", folder / FILE)


def _there(work: Path) -> pa.Table:
    files = sorted(work.glob("*.parquet"))
    tables = [schemas.read(path, "completions") for path in files]
    return pa.concat_tables(tables) if tables else schemas.empty("completions")


def _missing(requests: pa.Table, work: Path) -> pa.Table:
    """The requests that have no completion yet."""
    have = set(zip(*(_there(work)[name].to_pylist() for name in REQUEST), strict=True))
    keys = zip(*(requests[name].to_pylist() for name in REQUEST), strict=True)
    return requests.filter(pa.array([key not in have for key in keys], pa.bool_()))


def _ask(
    requests: Sequence[pa.Table],
    keys: Sequence[str],
    store: Store,
    asks: Asks[Any],
    config: Part,
    told: Callable[[str], None],
    planned: int,
) -> None:
    """Send requests in parallel actors and keep what comes back.

    Args:
        requests: those of each step.
        keys: of each step, whose `work` keeps what comes back.

    Raises:
        UsageError: the writer cannot be opened, or refuses all requests.
    """
    blocks = [
        rows.append_column(KEY, pa.array([key] * len(rows))).slice(at, ROWS_PER_SHARD)
        for rows, key in zip(requests, keys, strict=True)
        for at in range(0, len(rows), ROWS_PER_SHARD)
    ]
    if not blocks:
        return
    workers, gpus = asks.workers(config)
    rows = ray.data.from_arrow(blocks).map_batches(
        _Asking,
        fn_constructor_args=(asks.open, config, store),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=min(workers, len(blocks)),
        num_gpus=gpus or None,
        num_cpus=0 if gpus else 0.1,
    )
    done, failed = planned - sum(map(len, requests)), 0
    for row in rows.iter_rows():
        if row["refused"]:
            raise UsageError(row["refused"])
        done, failed = done + row["done"], failed + row["failed"]
        last = f", {failed} failed: {row['error']}" if row["failed"] else ""
        told(f"completions: {done} of {planned}{last}")


class _Asking:
    """Sends the requests of a block, one after the other; runs in an actor."""

    def __init__(self, open: Callable[[Any], Any], config: Part, store: Store) -> None:
        self.open, self.config, self.store = open, config, store
        self.writer: Any = None

    def __call__(self, block: pa.Table) -> pa.Table:
        found, error, refused = [], "", ""
        try:  # Ray would wrap the error, and print where it was raised
            self.writer = self.writer or self.open(self.config)
            for request in block.drop_columns(KEY).to_pylist():
                answer = self.writer.write(request)
                if answer["completion"] is None:
                    error = answer["error"]
                else:
                    answer.pop("error")
                    found.append({**request, **answer})
        except UsageError as wrong:
            refused = str(wrong)
        if found:
            table = schemas.from_rows("completions", found)
            path = self.store.work_file(block[KEY][0].as_py(), f"{uuid.uuid4().hex}.parquet")
            schemas.write(table, "completions", path)
            self.store.keep(path)
        failed = 0 if refused else len(block) - len(found)
        return pa.table(
            {"done": [len(found)], "failed": [failed], "error": [error], "refused": [refused]}
        )
