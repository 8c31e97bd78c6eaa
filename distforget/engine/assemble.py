"""Assembles a study's tables from its finished steps and failed attempts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

import pyarrow as pa

from distforget import schemas
from distforget.analysis.comparisons import compare, knowledge_metrics
from distforget.engine.data import read_samples
from distforget.engine.rows import cell_identity, identity
from distforget.plan import Plan, Step, cell_name
from distforget.probes import probes
from distforget.store import Store


def assemble(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Rewrite `studies/NAME/*.parquet` from all finished steps and return the tables."""
    tables = gather(plan, store)
    for name, table in tables.items():
        store.write_study_table(plan.study.name, name, table)
    return tables


def gather(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """The tables of a study, from the steps that are finished."""
    study = plan.study
    done = store.done(step.key for step in plan.steps())
    asked = [s for s in (*plan.asks, *plan.cells, *plan.attacks) if s.key in done]
    scored = [s for s in plan.probes if s.key in done]
    tables = {
        "training": _joined(
            "training",
            (_named(s, "training", plan, store) for s in plan.finetunes if s.key in done),
        ),
        "answers": _joined("answers", (_named(s, "answers", plan, store) for s in asked)),
        "scores": _joined("scores", (_named(s, "scores", plan, store) for s in scored)),
        "cells": _joined("cells", _cells(plan, store, done)),
        **{
            name: _joined(name, (_named(s, name, plan, store) for s in scored if name in _own(s)))
            for name in study.tables
        },
    }
    if plan.dataset.key in done:
        samples = read_samples(plan.dataset, store)
        tables["samples"] = _with(samples, {"dataset": study.data.name})
        if "completions" in plan.dataset.inputs:
            folder = store.folder(plan.dataset.key)
            for name in ("completions", "rewrites"):
                tables[name] = schemas.read(folder / f"{name}.parquet", name)
    metrics = knowledge_metrics(study.metric, tables["scores"])
    tables["comparisons"] = compare(tables["scores"], metrics, study.verify.margin)
    return tables


def _own(step: Step) -> tuple[str, ...]:
    """The tables of a probe step beside `scores`."""
    return probes()[step.about["probe"]].tables


def _joined(name: str, parts: Iterable[pa.Table]) -> pa.Table:
    found = list(parts)
    return pa.concat_tables(found) if found else schemas.empty(name)


def _named(step: Step, name: str, plan: Plan, store: Store) -> pa.Table:
    """Reads a step's table and puts this study's names into it.

    Another study with other names may have computed the step.
    """
    table = schemas.read(store.folder(step.key, whole=False) / f"{name}.parquet", name)
    return _with(table, {k: v for k, v in identity(step, plan.study).items() if v is not None})


def _with(table: pa.Table, values: dict[str, Any]) -> pa.Table:
    for name, value in values.items():
        place = table.schema.get_field_index(name)
        if place >= 0:
            field = table.schema.field(place)
            column = pa.repeat(pa.scalar(value, field.type), len(table))
            table = table.set_column(place, field, column)
    return table


def _cells(plan: Plan, store: Store, done: Set[str]) -> Iterator[pa.Table]:
    failed, tried = [], store.attempted()
    for step in plan.cells:
        if step.key in done:
            yield _with(_named(step, "cells", plan, store), {"cell": cell_name(step)})
        elif step.key in tried:
            attempts = store.attempts(step.key)
            last = attempts[-1]
            failed.append(
                {
                    **cell_identity(step, plan.study),
                    "cell": cell_name(step),
                    "key": step.key,
                    "state": last.state,
                    "diverged": False,
                    "attempts": len(attempts),
                    "error_class": last.error_class,
                    "error_message": last.error_message,
                    "error_traceback": last.error_traceback,
                }
            )
    yield schemas.from_rows("cells", failed)
