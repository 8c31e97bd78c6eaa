"""What a study found, put together for the terminal: verdicts, damage, dose-response."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pyarrow as pa
from rich.console import Console

from distforget.analysis.comparisons import knowledge_metrics
from distforget.analysis.doses import dose_response, slopes
from distforget.analysis.evidence import evidence
from distforget.analysis.separation import separation
from distforget.analysis.verdicts import damages, verdicts
from distforget.plan import Plan
from distforget.report.study_tables import cells_a_dose, planned_cells
from distforget.report.terminal import (
    print_damage,
    print_dose_response,
    print_evidence,
    print_separation,
    print_verdicts,
)


def print_findings(plan: Plan, tables: Mapping[str, pa.Table], console: Console) -> None:
    """Verdicts and damage of what is done; the dose-response where there are over two doses."""
    if not len(tables["comparisons"]):
        return
    verify, scores = plan.study.verify, tables["scores"]
    metrics = knowledge_metrics(verify.metric, scores)
    planned = cells_a_dose(planned_cells(plan))
    found = verdicts(tables["comparisons"], tables["cells"], planned, verify.margin)
    for metric in dict.fromkeys([*metrics, *(verdict.metric for verdict in found)]):
        print_verdicts([v for v in found if v.metric == metric], metric, console)
    print_damage(damages(scores, tables["cells"]), metrics, console)
    if verify.unseen:
        print_separation(separation(scores, verify.metric), verify.metric, console)
        print_evidence(evidence(scores), console)
    if len(plan.study.doses) > 2:
        for metric, role in product(metrics, ("target", "similar")):
            means, sloped = dose_response(scores, metric, role), slopes(scores, metric, role)
            print_dose_response(means, sloped, f"{metric} of {role}", console)
