"""Targets that are unlearned one after another: a whole run, whole weights and adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distforget.study import Study
from tests.conftest import study_content, write_study
from tests.running import run


@pytest.mark.parametrize("changes", [{}, {"adapter": {"rank": 2}}], ids=["whole", "adapters"])
def test_what_is_left_of_the_first_request(
    changes: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    content = study_content(
        tiny_model, doses=["all"], methods=["GA_KLN", "TV"], unlearn_targets=3, in_turn=[2, 3],
        **changes,
    )  # fmt: skip
    path, store = write_study(tmp_path / "tiny.yaml", content), tmp_path / "store"
    done = run("run", str(path), "--store", str(store))
    assert done.process.returncode == 0, done.text
    assert "Requests one after another on the same weights" in done.text
    assert "Leaderboard: tiny, dose 3" in done.text
    tables = store / "studies/tiny"
    cells = pd.read_parquet(tables / "cells.parquet")
    assert (cells["state"] == "done").all()
    assert cells.groupby(["method", "variant"]).size().to_dict() == {
        ("GA_KLN", "plain"): 3, ("GA_KLN", "in-turn"): 2, ("TV", "plain"): 3, ("TV", "in-turn"): 2,
    }  # fmt: skip
    turns = Study.model_validate(content).turns(0)
    answers = pd.read_parquet(tables / "answers.parquet").query("variant == 'in-turn'")
    for count in (2, 3):
        mine = answers[answers["unlearned"] == turns[count - 1]]
        asked = mine.loc[mine["role"] == "target", "target_index"]
        assert set(asked) == set(turns[:count])
    steps = cells.set_index(["variant", "unlearned", "method"])["steps"]
    assert steps["in-turn", turns[2], "TV"] == 3 * steps["plain", turns[2], "TV"]
    comparisons = pd.read_parquet(tables / "comparisons.parquet")
    assert "in-turn" not in set(comparisons["variant"])
    page = (tables / "report/data/study.js").read_text("ascii")
    data = json.loads(page.removeprefix('page.receive("study",').rstrip().removesuffix(");"))
    assert any("one after another" in shown["title"] for shown in data["findings"])
    (board,) = data["leaderboards"]
    assert {line["kind"] for line in board["lines"]} >= {"method", "before unlearning"}
    again = run("run", str(path), "--store", str(store))
    assert "0 steps computed now" in again.text
