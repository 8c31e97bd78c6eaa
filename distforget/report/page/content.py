"""What the page shows first: verdicts with their evidence, and damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Any

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import other_side
from distforget.analysis.verdicts import Verdict
from distforget.attacks import UNATTACKED
from distforget.method_choice import PLACEBO
from distforget.plan import Plan
from distforget.report import trust
from distforget.report.page import explorer, sentences
from distforget.report.page.boards import boards
from distforget.report.page.scripts import number
from distforget.report.study_tables import StudyTables
from distforget.report.tables import tables_of
from distforget.report.words import after, claim_of, method_name


def content(plan: Plan, drawn: StudyTables, tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """The content of the page except charts, downloads and what ran."""
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
        "leaderboards": boards(drawn),
        "claims": _claims(drawn, tables["comparisons"]),
        "findings": [
            asdict(shown)
            for shown in (
                *tables_of(plan.study, drawn.scores, drawn.cells, drawn.metrics),
                trust.shown(trust.of_study(plan, drawn.every_score)),
            )
            if shown.rows
        ],
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
    by = ["attack", "metric", "experiment", "quantity", "role", "expected", "dose", "model",
          "method", "variant"]  # fmt: skip
    frame = comparisons.to_pandas()
    frame["dose"] = frame["dose"].astype(int)
    means = frame.groupby([*by, "unlearned"])["difference"].mean().reset_index("unlearned")
    of_verdicts = dict(list(means.groupby(by)))
    claims = []
    every = groupby(drawn.every_verdict, lambda v: (v.attack, v.metric, v.experiment))
    for (attack, metric, e), group in every:
        found = list(group)
        models, doses = len({v.model for v in found}), len({v.dose for v in found})
        lines, first = [], metric == drawn.metrics[0]
        for v in found:
            claim = (attack, metric, e.name, e.quantity, e.role, e.expected)
            key = (*claim, v.dose, v.model, v.method, v.variant)
            lines.append(_line(v, sentences.name(v, models, doses), of_verdicts[key]))
        claims.append(
            {
                "id": f"{attack}-{metric}-{e.name}-{e.role}-{e.quantity}-{e.variant}-{e.dose}",
                "title": f"{e.title[0].upper()}{e.title[1:]}{after(attack)}",
                "short": claim_of(e) + f" ({metric})" * (not first) + after(attack),
                "margin": e.margin or drawn.margin,
                "main": e.quantity == "dose-dose" and first and attack == UNATTACKED,
                "summary": sentences.claim(e, found),
                "words": {w: n for w in sentences.ORDER if (n := sum(v.word == w for v in found))},
                "lines": lines,
            }
        )
    return claims


def _line(verdict: Verdict, name: str, by_target: pd.DataFrame) -> dict[str, Any]:
    """A verdict with its sentence and the differences behind it."""
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
