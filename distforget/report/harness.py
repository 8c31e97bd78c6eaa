"""Writes a study's scores in the result format of lm-evaluation-harness.

Source: `EvalResults` in lm_eval/result_schema.py and `EvaluationTracker` of version 0.4.13.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from distforget.analysis.doses import BEFORE
from distforget.analysis.states import STATE, means
from distforget.models import ModelConfig
from distforget.plan import STAGE_VERSIONS, Plan, Step
from distforget.probes import metric_named
from distforget.report.study_tables import StudyTables
from distforget.report.words import method_name
from distforget.study import Study

SHOULD_STAY = {"target": False, "other": True, "neighbour": True, "utility": True}
"""Whether knowledge about samples of a role should stay; for other roles it is open."""


def results(
    plan: Plan,
    tables: StudyTables,
    model: ModelConfig,
    facts: Mapping[str, tuple[str, ...]],
    written: float,
) -> dict[str, Any]:
    """Results of one model: a task per model state and role, with scores and standard errors.

    A score is the mean over targets (each the mean over its samples and seeds), its standard error
    that over targets. `higher_is_better` says what unlearning wants: less known of the target, as
    much as before of others, neighbours and questions of utility; null where that is open.

    Args:
        facts: where its cells were computed, as `study_tables.facts_of` gives it.
        written: time at which the tables were written, in seconds since 1970.
    """
    study = plan.study
    found = means(tables.scores)
    found = found[found["model"] == model.name]
    tasks = {_task(state): rows for state, rows in found.groupby([*STATE, "role"], dropna=False)}
    cells = tables.cells.to_pandas()
    cells = cells[cells["model"] == model.name]
    seconds = float(cells[["unlearn_seconds", "ask_seconds"]].sum().sum())
    metrics = {name: _metrics(rows) for name, rows in tasks.items()}
    better = {name: _better(rows) for name, rows in tasks.items()}
    samples = {name: int(rows["samples"].max()) for name, rows in tasks.items()}
    return {
        "results": {
            name: {"name": name, "alias": name, "sample_len": samples[name], **metrics[name]}
            for name in tasks
        },
        "group_subtasks": {name: [] for name in tasks},
        "configs": {
            name: {
                "task": name,
                **_asked(study, _first(rows)["role"]),
                "num_fewshot": 0,
                "repeats": study.seeds,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": wanted}
                    for metric, wanted in better[name].items()
                ],
                "metadata": _metadata(rows, plan, cells),
            }
            for name, rows in tasks.items()
        },
        "versions": {
            name: STAGE_VERSIONS["cell" if _first(rows)["phase"] == "post_unlearn" else "ask"]
            for name, rows in tasks.items()
        },
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": better,
        "n-samples": {name: {"original": n, "effective": n} for name, n in samples.items()},
        "config": {
            "model": "distforget",
            "model_args": {"pretrained": model.title, "study": study.name},
            "model_dtype": study.dtype,
            "model_revision": model.title.partition("@")[2] or "main",
            "batch_size": str(study.verify.batch_size),
            "device": ", ".join(facts.get("device", ())) or None,
            "limit": None,
            "gen_kwargs": {"max_gen_toks": study.verify.max_new_tokens, "do_sample": False},
            "random_seed": study.seed,
        },
        "git_hash": ", ".join(facts.get("commit", ())),
        "date": written,
        "transformers_version": ", ".join(facts.get("versions.transformers", ())),
        "model_source": "distforget",
        "model_name": model.title,
        "model_name_sanitized": model.name,
        "system_instruction": model.prompt.system,
        "task_hashes": {},
        "total_evaluation_time_seconds": str(seconds),
    }


def _asked(study: Study, role: str) -> dict[str, str]:
    """Where a task's questions come from, and how they are answered."""
    if role == "utility":
        config, own = study.questions[0]
        path, name, kind = (*own.origin(config), "multiple_choice")
    else:
        path, name, kind = study.data.source.kind, study.data.name, "generate_until"
    return {"dataset_path": path, "dataset_name": name, "output_type": kind}


def _task(state: tuple[Any, ...]) -> str:
    """Name of a task, e.g. 'NPO_GDN_dose_3_target' or 'before_fine-tuning_similar'."""
    phase, _, dose, method, variant, role = state
    name = BEFORE[phase].replace(" ", "_") if phase in BEFORE else method_name(method, variant)
    return f"{name}{'' if pd.isna(dose) else f'_dose_{int(dose)}'}_{role}"


def _first(rows: pd.DataFrame) -> dict[str, Any]:
    return {str(name): value for name, value in rows.iloc[0].items()}


def _metrics(rows: pd.DataFrame) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for metric, mean, stderr in zip(rows["metric"], rows["mean"], rows["stderr"], strict=True):
        found[f"{metric},none"] = _number(mean)
        found[f"{metric}_stderr,none"] = _number(stderr)
    return found


def _number(value: float) -> float | str:
    """The number, or 'N/A' as the harness writes NaN, which JSON does not have."""
    return float(value) if math.isfinite(value) else "N/A"


def _better(rows: pd.DataFrame) -> dict[str, bool | None]:
    stays = SHOULD_STAY.get(_first(rows)["role"])
    return {
        metric: None
        if stays is None or metric_named(metric).measures_nothing
        else stays != metric_named(metric).falls
        for metric in rows["metric"]
    }


def _metadata(rows: pd.DataFrame, plan: Plan, cells: pd.DataFrame) -> dict[str, Any]:
    """Describes what a task asks, of which model state, and from how many cells."""
    first = _first(rows)
    about = {name: None if pd.isna(first[name]) else first[name] for name in [*STATE, "role"]}
    found = {**about, "targets": int(rows["targets"].max())}
    if about["dose"] is not None:
        found["dose"] = int(about["dose"])
    if about["method"] is None:
        return found
    planned = [step for step in plan.cells if _is_of(step, found)]
    mine = cells[["model", "dose", "method", "variant"]].eq(
        [found[name] for name in ("model", "dose", "method", "variant")]
    )
    done = cells[mine.all(axis=1) & cells["state"].eq("done")]
    settings = ("family", "version", "regulariser", "config", "enhanced")
    return {
        **found,
        "cells_planned": len(planned),
        "cells_done": len(done),
        "cells_diverged": int(done["diverged"].sum()),
        "settings": {name: planned[0].config[name] for name in settings},
    }


def _is_of(step: Step, state: Mapping[str, Any]) -> bool:
    return all(step.about[name] == state[name] for name in ("model", "dose", "method", "variant"))
