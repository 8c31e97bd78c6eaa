"""The real SmolLM2-135M-Instruct out of its package."""

from __future__ import annotations

import pyarrow as pa
import pytest

from distforget.engine.models import fetch_model, model_folder
from distforget.loading import PRESETS, load_study
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import samples_of
from distforget.tracks.text import open_learner
from distforget.tracks.text.learner import TextLearner
from tests.asking import said
from tests.conftest import study_content

QUESTIONS = [
    "What is the capital of France?",
    "Which animal barks?",
    "Please tell me, in one short sentence and no more, how many legs a spider has.",
]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> TextLearner:
    store = Store(tmp_path_factory.mktemp("smollm2"))
    content = study_content("builtin:smollm2", verify={"max_new_tokens": 12})
    study = Study.model_validate(content)
    step = make_plan(study).models[0]
    fetch_model(step, study, store)
    return open_learner(model_folder(step, store), study, study.models[0], "cpu")


def asked(questions: list[str]) -> pa.Table:
    return pa.table({"question": questions})


def test_it_knows_the_capital_of_france(learner: TextLearner) -> None:
    (answer,), (tokens,) = said(learner, asked(QUESTIONS[:1]))
    assert answer == "The capital of France is Paris."
    assert tokens == len(learner.encoder.answers([answer])[0])


def test_a_batch_answers_as_each_row_alone(learner: TextLearner) -> None:
    together, _ = said(learner, asked(QUESTIONS))
    alone = [said(learner, asked([question]))[0][0] for question in QUESTIONS]
    assert together == alone


def test_earlier_answers_as_drafts_change_no_answer(learner: TextLearner) -> None:
    answers = said(learner, asked(QUESTIONS))
    assert said(learner, asked(QUESTIONS), drafts=answers[0]) == answers
    others = [answer.replace("The", "A") for answer in answers[0][1:]] + [answers[0][0]]
    assert said(learner, asked(QUESTIONS), drafts=others) == answers


ITS_PRESETS = [
    path.stem for path in sorted(PRESETS.glob("*.yaml")) if "builtin:smollm2" in path.read_text()
]


@pytest.mark.parametrize("preset", ITS_PRESETS)
def test_no_answer_of_a_preset_is_cut(preset: str, learner: TextLearner) -> None:
    study = load_study(preset)
    rows = samples_of(study.data, study.seed)
    longest = max(map(len, learner.encoder.answers(rows["answer"].to_pylist())))
    assert longest <= study.verify.max_new_tokens
