"""Progress: lines everywhere, a bar where the console is a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from distforget.engine.states import Outcome
from distforget.plan import Step
from distforget.report.progress import Progress

CELL = {"model": "m", "dose": 1, "method": "GA", "variant": "plain", "unlearned": 1, "seed": 0}


def steps(count: int, stage: str = "cell") -> list[Step]:
    return [
        Step(stage, {"number": i}, about={**CELL, "unlearned": i, "probe": "rouge"})
        for i in range(count)
    ]


def shown(terminal: bool, failing: int = 0) -> str:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=terminal, width=100)) as progress:
        progress.stage("cells", 3)
        for number, step in enumerate(steps(3)):
            done = number >= failing
            progress.finished(step, Outcome(step.key, done, 1.0, "" if done else "no memory"))
        progress.bars.refresh()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_each_step_is_a_line_everywhere() -> None:
    for terminal in (False, True):
        text = shown(terminal)
        assert all(f"m/1/GA/{i}/0" in text for i in range(3))


def test_only_a_terminal_has_a_bar() -> None:
    assert "━━━" in shown(terminal=True)
    assert "━━━" not in shown(terminal=False)


def test_a_failure_is_said_with_its_error() -> None:
    text = shown(terminal=False, failing=1)
    assert "failed no memory" in text
    assert "(3/3, 1 failed)" in text


def test_probes_are_not_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=120))
    progress.stage("scores", 50)
    for step in steps(50, "probe"):
        state = Step("cell", {}, about=step.about)
        probe = Step("probe", step.config, {"state": state}, step.about)
        progress.finished(probe, Outcome(probe.key, True, 0.0))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3  # the stage, the first and the last
    assert "(50/50)" in lines[-1]
