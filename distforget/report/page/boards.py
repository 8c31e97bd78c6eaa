"""The leaderboards as the page's data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from distforget.analysis.leaderboard import leaderboards
from distforget.report.leaderboard import name_of
from distforget.report.page.scripts import number
from distforget.report.study_tables import StudyTables


def boards(tables: StudyTables) -> list[dict[str, Any]]:
    """One for each model and dose."""
    return [
        {
            "model": board.model,
            "dose": board.dose,
            "metric": board.metric,
            "share": board.is_share,
            "columns": [asdict(column) for column in board.columns],
            "lines": [
                {
                    "name": name_of(line),
                    "kind": line.kind,
                    "front": line.on_front,
                    "targets": line.targets,
                    "diverged": line.diverged,
                    "values": {
                        name: [number(value.mean), number(value.low), number(value.high)]
                        for name, value in line.values.items()
                    },
                }
                for line in board.lines
            ],
        }
        for board in leaderboards(tables.every_score, tables.cells, tables.metrics[0])
    ]
