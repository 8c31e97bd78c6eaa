"""Fills a store with made-up tables of a text study, as if it had run: for pages of any size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from distforget import schemas
from distforget.analysis.comparisons import compare, knowledge_metrics
from distforget.data import TextData
from distforget.draws import rng
from distforget.plan import Plan, cell_name
from distforget.store import Store

WORDS = (
    "the", "quiet", "harbour", "town", "of", "Borkara", "kept", "a", "ledger", "in", "which",
    "every", "fog", "surveyor", "wrote", "down", "who", "was", "born", "there", "that", "year",
)  # fmt: skip
FAILED_EVERY = 400
"""One in so many cells has failed; the one before it has diverged."""
NO_STATE: dict[str, Any] = dict.fromkeys(("dose", "seed", "method", "variant", "unlearned"))


def fill(plan: Plan, store: Store, say: Callable[[str, int], str] | None = None) -> None:
    """Write all tables of a study; scores are noise around what the paper found.

    Args:
        say: the text of a kind ("question", "answer", "error") and number; none: made-up words.
    """
    study, say = plan.study, say or _sentence
    name, data = study.name, study.data
    rows_of_data = samples(plan, say)
    store.write_study_table(name, "samples", rows_of_data)
    frame = rows_of_data.to_pandas()
    asked = frame[frame["similar_rank"].isna() | (frame["similar_rank"] <= study.verify.similar)]
    family = asked[asked["role"].isin(["target", "similar"])]
    of_targets = {int(t): rows for t, rows in family.groupby("target_index")}
    others = asked[asked["role"] == "other"].head(study.verify.others)
    states = list(_states(plan))
    numbers = itertools.count()
    answers, scores = [], []
    for state in states:
        mine = [state["unlearned"]] if state["unlearned"] else range(1, study.unlearn_targets + 1)
        rows = pd.concat([*(of_targets[t] for t in mine), others])
        rows = rows[["sample_id", "role", "target_index"]].assign(
            track="text", dataset=data.name, attack="none"
        )
        rows = rows.assign(**{k: v for k, v in state.items() if v is not None})
        values = _values(state, rows["role"], study.seed)
        said = [say("answer", next(numbers)) for _ in range(len(rows))]
        answers.append(_table("answers", rows.assign(answer=said, answer_tokens=12)))
        scores += [_table("scores", rows.assign(metric=m, value=values)) for m in study.metrics]
    found = pa.concat_tables(scores)
    store.write_study_table(name, "answers", pa.concat_tables(answers))
    store.write_study_table(name, "scores", found)
    store.write_study_table(name, "cells", _cells(plan, say))
    store.write_study_table(name, "training", schemas.empty("training"))
    metrics = knowledge_metrics(study.metric, found)
    compared = compare(found, metrics, study.verify.margin)
    store.write_study_table(name, "comparisons", compared)


def samples(plan: Plan, say: Callable[[str, int], str] | None = None) -> pa.Table:
    """The samples of a study; `say` as in :func:`fill`."""
    say = say or _sentence
    data = plan.study.data
    kinds: list[dict[str, Any]] = [
        {"role": "target", "target_index": t} for t in range(1, data.targets + 1)
    ]
    kinds += [
        {"role": "similar", "target_index": t, "similar_rank": rank}
        for t in range(1, data.targets + 1)
        for rank in range(1, data.similar.per_target + 1)
    ]
    assert isinstance(data, TextData)
    kinds += [{"role": "other"}] * data.others
    rows = [
        {**kind, "dataset": data.name, "sample_id": i, "question": say("question", i),
         "answer": say("answer", i)}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    return schemas.from_rows("samples", rows)


def _states(plan: Plan) -> Iterator[dict[str, Any]]:
    """Model states that were asked, those of failed cells left out."""
    for step in plan.asks:
        yield {**NO_STATE, **step.about}
    for number, step in enumerate(plan.cells, 1):
        if number % FAILED_EVERY:
            yield {"phase": "post_unlearn", **step.about}


def _values(state: dict[str, Any], roles: pd.Series, seed: int) -> np.ndarray[Any, Any]:
    """Low before fine-tuning, high before unlearning; after it the higher, the more similar."""
    level = {"pre_finetune": 0.2, "pre_unlearn": 0.95}.get(state["phase"], 0.35)
    if state["phase"] == "post_unlearn" and state["dose"]:
        level = 0.6
    noise = rng(seed, *map(str, state.values())).normal(0, 0.15, len(roles))
    levels = np.where(roles == "other", max(level, 0.85), level)
    return np.clip(levels + noise, 0, 1).round(4)


def _cells(plan: Plan, say: Callable[[str, int], str]) -> pa.Table:
    rows = []
    for number, step in enumerate(plan.cells, 1):
        failed = number % FAILED_EVERY == 0
        row = {
            **step.about, "cell": cell_name(step), "key": step.key, "track": "text",
            "dataset": plan.study.data.name, "state": "failed" if failed else "done",
            "diverged": number % FAILED_EVERY == FAILED_EVERY - 1, "attempts": int(failed),
        }  # fmt: skip
        if failed:
            row |= {"error_class": "RuntimeError", "error_message": say("error", number),
                    "error_traceback": say("error", number)}  # fmt: skip
        rows.append(row)
    return schemas.from_rows("cells", rows)


def _table(name: str, frame: pd.DataFrame) -> pa.Table:
    schema = schemas.arrow_schema(name)
    columns = [
        pa.array(frame[field.name], field.type, from_pandas=True)
        if field.name in frame
        else pa.nulls(len(frame), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _sentence(kind: str, number: int) -> str:
    start = number % len(WORDS)
    words = (WORDS[start:] + WORDS[:start])[: 10 + number % 8]
    return " ".join(words).capitalize() + ("?" if kind == "question" else ".")
