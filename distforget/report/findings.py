"""Prints a study's findings: verdicts, then the tables beside them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import pyarrow as pa
from rich.console import Console

from distforget.analysis.comparisons import knowledge_metrics
from distforget.analysis.leaderboard import leaderboards
from distforget.analysis.states import unattacked
from distforget.analysis.verdicts import verdicts
from distforget.plan import Plan
from distforget.report import leaderboard
from distforget.report.study_tables import cells_a_dose, planned_cells
from distforget.report.tables import tables_of
from distforget.report.terminal import print_shown, print_verdicts


def print_findings(plan: Plan, tables: Mapping[str, pa.Table], console: Console) -> None:
    """Print the findings from all finished cells."""
    if not len(tables["comparisons"]):
        return
    study, scores = plan.study, unattacked(tables["scores"])
    planned = cells_a_dose(planned_cells(plan))
    found = verdicts(tables["comparisons"], tables["cells"], planned, study.verify.margin)
    for (_, metric), of_both in groupby(found, lambda v: (v.attack, v.metric)):
        print_verdicts(list(of_both), metric, console)
    metrics = knowledge_metrics(study.metric, scores)
    for board in leaderboards(tables["scores"], tables["cells"], metrics[0]):
        print_shown(leaderboard.shown(board), console)
    for shown in tables_of(study, scores, tables["cells"], metrics):
        print_shown(shown, console)
