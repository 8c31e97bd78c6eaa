"""What a data card says of licences: only what distforget made up itself is under its own."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from distforget.report.card import Size, card
from distforget.study import Study

BASE = {
    "name": "s",
    "data": {"targets": 2},
    "models": [{"name": "m", "base": "some/model"}],
    "methods": ["GA"],
    "unlearn_targets": 2,
}
QUESTIONS = ["rouge", {"kind": "choices", "questions": 9, "path": "some/questions"}]
OF_HUB = {"source": {"kind": "hub", "path": "some/data"}, "targets": 2}


@pytest.mark.parametrize(
    ("content", "licence", "said", "silent"),
    [
        (BASE, "apache-2.0", ["made up", "all tables are under"], ["keeps its licence"]),
        (
            {**BASE, "probes": QUESTIONS},
            "other",
            ["made up", "'some/questions'", "keeps its licence"],
            ["all tables"],
        ),
        (
            {**BASE, "data": OF_HUB},
            "other",
            ["the source 'hub'", "keeps its licence"],
            ["made up", "all tables"],
        ),
    ],
)
def test_rows_from_elsewhere_keep_their_licence(
    content: dict[str, Any], licence: str, said: list[str], silent: list[str]
) -> None:
    study = Study.model_validate(content)
    text = card(study, {"samples": Size(3, 10)}, {"planned": 1}, {}, "2026-11-26", ())
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == licence
    assert [part for part in said if part not in body] == []
    assert [part for part in silent if part in body] == []
