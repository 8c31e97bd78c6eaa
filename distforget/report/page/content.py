"""What the page says at once: verdicts with their evidence, damage, what there is to explore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import other_side
from distforget.analysis.evidence import CAPTION, evidence, shown
from distforget.analysis.separation import separation
from distforget.analysis.verdicts import Damage, Verdict, damages
from distforget.dataset_config import CHOICE_ACCURACY
from distforget.plan import Plan
from distforget.report.page import explorer, sentences
from distforget.report.page.scripts import number
from distforget.report.study_tables import StudyTables
from distforget.report.terminal import claim_of, method_name
from distforget.study import PLACEBO

KEPT = ("answer_probability", "answer_perplexity", "label_probability", CHOICE_ACCURACY)
"""Shown of damage beside the score."""


def content(plan: Plan, drawn: StudyTables, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Everything but charts, downloads and what ran."""
    planned = drawn.planned
    unlearned = sorted(map(int, planned["unlearned"].unique()))
    pairs = planned[["method", "variant"]].drop_duplicates().to_dict("records")
    return {
        "study": drawn.name,
        "track": plan.study.track,
        "metric": drawn.metrics[0],
        "date": drawn.date,
        "note": drawn.note,
        "facts": _facts(plan, drawn),
        "lead": sentences.lead(drawn),
        "reference": sentences.reference(drawn),
        "claims": _claims(drawn, tables["comparisons"]),
        "findings": _findings(plan, drawn),
        "explorer": {
            "unlearned": unlearned,
            "targets": explorer.targets(tables["samples"], unlearned)
            if "samples" in tables
            else [],
            "models": list(drawn.paths),
            "doses": drawn.doses,
            "seeds": sorted(map(int, planned["seed"].unique())),
            "methods": [
                {**pair, "name": method_name(pair["method"], pair["variant"])} for pair in pairs
            ],
        },
    }


def _facts(plan: Plan, drawn: StudyTables) -> list[list[str]]:
    states = Counter(drawn.outcomes["state"])
    cells = [f"{states['done']} of {len(drawn.planned)} done"]
    cells += [f"{n} {state}" for state, n in states.items() if state != "done"]
    diverged = int(drawn.outcomes["diverged"].sum())
    cells += [f"{diverged} diverged"] * bool(diverged)
    methods = drawn.planned[["method", "variant"]].drop_duplicates()
    return [
        ["Cells", ", ".join(cells)],
        ["Models", ", ".join(drawn.paths)],
        ["Methods", str(len(methods[methods["variant"] != PLACEBO]))],
        ["Targets", str(drawn.targets)],
        ["Similar samples in the data", ", ".join(map(str, drawn.doses))],
        ["Scores" if len(drawn.metrics) > 1 else "Score", ", ".join(drawn.metrics)],
        ["Tables of", drawn.date],
    ]


def _claims(drawn: StudyTables, comparisons: pa.Table) -> list[dict[str, Any]]:
    """Claims with their verdicts, and each verdict's differences by target."""
    by = ["metric", "experiment", "quantity", "role", "expected", "dose", "model", "method",
          "variant"]  # fmt: skip
    frame = comparisons.to_pandas()
    frame["dose"] = frame["dose"].astype(int)
    means = frame.groupby([*by, "unlearned"])["difference"].mean().reset_index("unlearned")
    of_verdicts = dict(list(means.groupby(by)))
    claims = []
    for (metric, e), group in groupby(drawn.verdicts, lambda v: (v.metric, v.experiment)):
        found = list(group)
        models, doses = len({v.model for v in found}), len({v.dose for v in found})
        lines = []
        for v in found:
            claim = (metric, e.name, e.quantity, e.role, e.expected)
            key = (*claim, v.dose, v.model, v.method, v.variant)
            lines.append(_line(v, sentences.name(v, models, doses), of_verdicts[key]))
        claims.append(
            {
                "id": f"{metric}-{e.name}-{e.role}-{e.quantity}-{e.variant}-{e.dose}",
                "title": f"{e.title[0].upper()}{e.title[1:]}",
                "short": claim_of(e) + f" ({metric})" * (metric != drawn.metrics[0]),
                "margin": e.margin or drawn.margin,
                "main": e.quantity == "dose-dose" and metric == drawn.metrics[0],
                "summary": sentences.claim(e, found),
                "words": {w: n for w in sentences.ORDER if (n := sum(v.word == w for v in found))},
                "lines": lines,
            }
        )
    return claims


def _line(verdict: Verdict, name: str, by_target: pd.DataFrame) -> dict[str, Any]:
    """A verdict, what it says, and the differences behind it."""
    method, variant = other_side(verdict.experiment, verdict.method, verdict.variant)
    other = {
        "dose": 0 if verdict.experiment.quantity == "dose-dose" else verdict.dose,
        "method": method,
        "variant": variant,
    }
    mine = {"dose": verdict.dose, "method": verdict.method, "variant": verdict.variant}
    return {
        "name": name,
        "model": verdict.model,
        **mine,
        "state": method_name(verdict.method, verdict.variant),
        "against": None if other == mine else other,
        "sentence": sentences.line(verdict),
        "word": verdict.word,
        "verdict": sentences.word(verdict),
        "estimate": number(verdict.estimate),
        "low": number(verdict.low),
        "high": number(verdict.high),
        "targets": [int(t) for t in by_target["unlearned"]],
        "differences": [number(d) for d in by_target["difference"]],
    }


def _findings(plan: Plan, drawn: StudyTables) -> list[dict[str, Any]]:
    """Tables beside the verdicts: damage and, of images, controls and evidence."""
    if not len(drawn.scores):
        return []
    found = [_damage(damages(drawn.scores, drawn.cells), drawn.metrics)]
    if plan.study.verify.unseen:
        found += [_control(separation(drawn.scores, drawn.metric), drawn.metric)]
        found += [_evidence(drawn.scores)]
    return [table for table in found if table["rows"]]


def _damage(found: Sequence[Damage], knowledge: Sequence[str]) -> dict[str, Any]:
    wanted = dict.fromkeys([*knowledge, *KEPT])
    metrics = [m for m in wanted if any(m in d.before for d in found)]
    return {
        "title": "Damage to samples that should stay",
        "caption": "Mean scores before and after unlearning, over all targets unlearned.",
        "columns": ["samples", "model", "method", "dose", *metrics, "diverged"],
        "words": 3,
        "rows": [
            [
                d.role, d.model, method_name(d.method, d.variant), str(d.dose),
                *(_change(d, m) for m in metrics),
                f"{d.diverged} of {d.cells}",
            ]
            for d in found
        ],
    }  # fmt: skip


def _change(damage: Damage, metric: str) -> str:
    if metric not in damage.before:
        return ""
    return f"{damage.before[metric]:.2f} → {damage.after[metric]:.2f}"


def _control(found: pd.DataFrame, metric: str) -> dict[str, Any]:
    return {
        "title": "Control: can the score tell trained from never-trained samples?",
        "caption": f"{metric} before unlearning; with no gap here nothing can be said of targets.",
        "columns": [
            "model", "dose", "trained", "never trained", "AUC", "TPR at 1 % FPR", "n",
            "n never trained",
        ],
        "words": 1,
        "rows": [
            [
                r.model, str(r.dose), f"{r.trained:.2f}", f"{r.unseen:.2f}", f"{r.auc:.3f}",
                f"{r.tpr:.2f}", str(r.n_trained), str(r.n_unseen),
            ]
            for r in found.itertuples()
        ],
    }  # fmt: skip


def _evidence(scores: pa.Table) -> dict[str, Any]:
    found = evidence(scores).drop(columns="n")
    return {
        "title": "The target itself: is it gone, and is its influence gone?",
        "caption": CAPTION,
        "columns": list(found.columns),
        "words": 2,
        "rows": [
            [*map(str, row[:3]), *map(shown, found.columns[3:], row[3:])]
            for row in found.itertuples(index=False)
        ],
    }
