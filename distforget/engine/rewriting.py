"""Has targets rephrased with Ray Data; completions are kept as they come."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    asked = step.inputs["completions"]
    completions = _fetched(asked, families, 0, asks, config, study, store, told)
    rewrites = asks.rewrites(families, config, completions)
    for round in range(1, 1 + getattr(config, "rounds", 0)):
        short = asks.too_few(config, rewrites)
        if not short:
            break
        told(f"{len(short)} targets have too few usable restatements: asking for more")
        again = {**asked.config, "round": round, "targets": sorted(short)}
        asked = replace(asked, config=again, inputs={"before": asked})
        mine = families.filter(pc.is_in(families["target_index"], pa.array(sorted(short))))
        more = _fetched(asked, mine, round, asks, config, study, store, told)
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
    step: Step,
    families: pa.Table,
    round: int,
    asks: Asks[Any],
    config: Part,
    study: Study,
    store: Store,
    told: Callable[[str], None],
) -> pa.Table:
    """Table `completions` of one round; only requests without a completion are sent."""
    if not store.is_done(step.key):
        requests = asks.requests(families, config, study.seed, round)
        work = store.work(step.key)
        _ask(_missing(requests, work), work, asks, config, told, len(requests))
        left = _missing(requests, work)
        if len(left):
            raise RequestsFailedError(
                f"data.similar: {len(left)} of {len(requests)} requests failed after all tries, "
                f"e.g. for target {left['target_index'][0]}; the completions that came are kept, "
                "so the same command asks for the missing ones alone"
            )
        order = [(name, "ascending") for name in REQUEST]
        table = _there(work).sort_by(order)
        store.commit(
            step, lambda folder: schemas.write(table, "completions", folder / "completions.parquet")
        )
    return schemas.read(store.folder(step.key) / "completions.parquet", "completions")


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
    requests: pa.Table,
    work: Path,
    asks: Asks[Any],
    config: Part,
    told: Callable[[str], None],
    planned: int,
) -> None:
    """Send requests in parallel actors and keep what comes back.

    Raises:
        UsageError: the writer cannot be opened, or refuses all requests.
    """
    if not len(requests):
        return
    workers, gpus = asks.workers(config)
    blocks = [requests.slice(at, ROWS_PER_SHARD) for at in range(0, len(requests), ROWS_PER_SHARD)]
    rows = ray.data.from_arrow(blocks).map_batches(
        _Asking,
        fn_constructor_args=(asks.open, config, work),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=min(workers, len(blocks)),
        num_gpus=gpus or None,
        num_cpus=0 if gpus else 0.1,
    )
    done, failed = planned - len(requests), 0
    for row in rows.iter_rows():
        if row["refused"]:
            raise UsageError(row["refused"])
        done, failed = done + row["done"], failed + row["failed"]
        last = f", {failed} failed: {row['error']}" if row["failed"] else ""
        told(f"completions: {done} of {planned}{last}")


class _Asking:
    """Sends the requests of a block, one after the other; runs in an actor."""

    def __init__(self, open: Callable[[Any], Any], config: Part, work: Path) -> None:
        self.open, self.config, self.work = open, config, work
        self.writer: Any = None

    def __call__(self, block: pa.Table) -> pa.Table:
        found, error, refused = [], "", ""
        try:  # Ray would wrap the error, and print where it was raised
            self.writer = self.writer or self.open(self.config)
            for request in block.to_pylist():
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
            schemas.write(table, "completions", self.work / f"{uuid.uuid4().hex}.parquet")
        failed = 0 if refused else len(block) - len(found)
        return pa.table(
            {"done": [len(found)], "failed": [failed], "error": [error], "refused": [refused]}
        )
