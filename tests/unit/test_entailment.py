"""Entailment of the true answer by the model's, against plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from distforget.probes import probes
from distforget.probes.entailment import PROBE, EntailmentConfig
from tests.judging import chance_of, write_judge
from tests.unit.test_study import CONTENT, keys, plan_of

QUESTIONS = ["Where is it?", "Who is it?", "What is it?"]
TRUE = ["It is in the garden.", "A man.", "A stone."]
SAID = ["In the garden.", "It is a woman.", "A stone."]


class Evidence:
    """Three answers, one of them chosen."""

    samples = pa.table(
        {"question": QUESTIONS, "answer": TRUE, "choices": [None, None, ["A stone.", "Wood."]]}
    )

    def answers(self) -> list[str]:
        return SAID


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge"), [*QUESTIONS, *TRUE, *SAID])


def test_free_answers_are_judged_behind_their_questions(judge: Path) -> None:
    evidence: Any = Evidence()
    found = PROBE.run(evidence, EntailmentConfig(path=str(judge))).values["entailment"]
    chance = chance_of(judge)
    for row in (0, 1):
        wanted = chance(f"{QUESTIONS[row]} {SAID[row]}", f"{QUESTIONS[row]} {TRUE[row]}")
        assert found[row] == pytest.approx(wanted, abs=1e-5)
    assert found.mask.tolist() == [False, False, True]


def test_no_study_has_it_unasked_and_the_judges_files_decide(judge: Path) -> None:
    assert "entailment" in probes()
    without = {name: value for name, value in CONTENT.items() if name != "probes"}
    kinds = [config.kind for config in plan_of(without).study.probes]
    assert "entailment" not in kinds
    assert "rouge" in kinds
    asking = {**CONTENT, "probes": ["rouge", {"kind": "entailment", "path": str(judge)}]}
    before = keys(asking)
    (judge / "vocab.txt").open("a").write("\n")
    assert set(keys(asking)) != set(before)
