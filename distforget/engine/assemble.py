"""Assembles a study's tables from its finished steps and failed attempts."""

from __future__ import annotations

from collections.abc import Set

import pyarrow as pa

from distforget import schemas
from distforget.analysis.comparisons import compare, knowledge_metrics
from distforget.engine.data import read_samples
from distforget.engine.packs import Packs, with_values
from distforget.engine.rows import cell_identity
from distforget.plan import Plan, Step, cell_name
from distforget.probes import probes
from distforget.store import Store


def assemble(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Rewrite `studies/NAME/*.parquet` from all finished steps and return the tables."""
    tables = gather(plan, store, pack=True)
    for name, table in tables.items():
        store.write_study_table(plan.study.name, name, table)
    return tables


def gather(plan: Plan, store: Store, pack: bool = False) -> dict[str, pa.Table]:
    """The tables of a study, from the steps that are finished.

    Args:
        pack: keep the tables of each `PACK` steps in one file, for the next time.
    """
    study = plan.study
    done = store.done(step.key for step in plan.steps())
    asked = [s for s in (*plan.asks, *plan.cells, *plan.attacks) if s.key in done]
    scored = [s for s in plan.probes if s.key in done]
    trained = [s for s in plan.finetunes if s.key in done]
    unlearned = [s for s in plan.cells if s.key in done]
    packs = Packs(plan, store, pack)
    tables = {
        "training": packs.table("training", trained),
        "answers": packs.table("answers", asked),
        "scores": packs.table("scores", scored),
        "cells": pa.concat_tables([packs.table("cells", unlearned), _failed(plan, store, done)]),
        **{
            name: packs.table(name, [s for s in scored if name in _own(s)]) for name in study.tables
        },
    }
    packs.sweep()
    if plan.dataset.key in done:
        samples = read_samples(plan.dataset, store)
        tables["samples"] = with_values(samples, {"dataset": study.data.name})
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


def _failed(plan: Plan, store: Store, done: Set[str]) -> pa.Table:
    """The rows of `cells` of those that have attempts and no result."""
    failed, tried = [], store.attempted()
    for step in plan.cells:
        if step.key in tried and step.key not in done:
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
    return schemas.from_rows("cells", failed)
