"""Choosing an answer, against one forward pass for each question and choice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedModel

from distforget import schemas
from distforget.metrics import CHOICE_ACCURACY
from distforget.probes.choices import ChoicesConfig
from distforget.probes.likelihood import LikelihoodConfig
from distforget.probes.rouge import RougeConfig
from distforget.tracks.text.choices import choice_logprobs
from distforget.tracks.text.learner import TextLearner
from tests.adapted import Setting
from tests.asking import metrics_of, said, scored, tables_of
from tests.contract.test_methods import samples
from tests.unit.test_generation import ARCHITECTURES, LONGEST_PROMPT, MAX_NEW, Case, make_case


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, tmp_path_factory.mktemp("choices") / request.param)


@torch.no_grad()
def mean_logprob(module: PreTrainedModel, prompt: Sequence[int], choice: Sequence[int]) -> float:
    tokens = torch.tensor([[*prompt, *choice[:-1]]])
    logits = module(input_ids=tokens, use_cache=False).logits[0]
    logprobs = logits[len(prompt) - 1 :].log_softmax(-1)
    return float(np.mean([logprobs[i, token] for i, token in enumerate(choice)]))


@pytest.mark.parametrize("longest", [1, 6])
@pytest.mark.parametrize("batch", [1, 5, 12])
def test_each_choice_is_as_likely_as_in_a_pass_of_its_own(
    case: Case, batch: int, longest: int
) -> None:
    draw = random.Random(1)
    choices = [
        [
            [draw.randrange(2, case.vocabulary) for _ in range(draw.randint(1, longest))]
            for _ in range(draw.randint(1, 4))
        ]
        for _ in case.prompts
    ]
    found = choice_logprobs(case.module, case.prompts, choices, batch_size=batch, pad_token_id=0)
    for prompt, mine, means in zip(case.prompts, choices, found, strict=True):
        assert means == pytest.approx([mean_logprob(case.module, prompt, c) for c in mine])


@pytest.mark.parametrize("batch", [1, 2, 3, 12])
def test_no_pass_goes_past_the_models_last_position(case: Case, batch: int) -> None:
    last = LONGEST_PROMPT + MAX_NEW - 1  # of the model: see make_case
    draw = random.Random(2)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(2, case.vocabulary) for _ in range(count)]

    prompts = [tokens(last - 1), tokens(3), tokens(last - 5), tokens(9)]
    choices = [[tokens(1), tokens(2)], [tokens(5), tokens(1)], [tokens(6)], [tokens(12), tokens(4)]]
    found = choice_logprobs(case.module, prompts, choices, batch_size=batch, pad_token_id=0)
    for prompt, mine, means in zip(prompts, choices, found, strict=True):
        assert means == pytest.approx([mean_logprob(case.module, prompt, c) for c in mine])


QUESTIONS = schemas.from_rows(
    "samples",
    [
        {
            "dataset": "d", "sample_id": 100 + i, "role": "utility", "question": question,
            "answer": choices[i % len(choices)], "choices": choices,
        }
        for i, (question, choices) in enumerate(
            [
                ("Where is it?", ["In the town.", "No", "1950", "a man was born"]),
                ("Who?", ["man", "the town in 1950", "he"]),
                ("When was the man born, and in which town?", ["1950", "Yes", "He", "in"]),
                ("What?", ["born", "a b c", "town"]),
            ]
        )
    ],
)  # fmt: skip


def likeliest(learner: TextLearner, slot: int) -> list[str]:
    """Each choice asked as an answer of its own."""
    assert learner.slots is not None
    found = []
    for row in QUESTIONS.to_pylist():
        rows = [{**row, "choices": None, "answer": choice} for choice in row["choices"]]
        asked = schemas.from_rows("samples", rows)
        values = scored(learner, asked, [LikelihoodConfig()], [slot] * len(rows)).values
        found.append(row["choices"][int(np.argmax(values["answer_probability"]))])
    return found


def test_a_learner_chooses_the_answer_of_highest_probability_with_each_slots_weights(
    exact: Setting,
) -> None:
    learner = exact.learner
    exact.slots.load(exact.pool[:3])
    chosen = [likeliest(learner, slot) for slot in range(3)]
    assert len({tuple(of_slot) for of_slot in chosen}) > 1  # or slots would not show
    free = samples().slice(0, 5)
    mixed = pa.concat_tables([QUESTIONS.slice(0, 2), free, QUESTIONS.slice(2)])
    every = pa.concat_tables([mixed] * 3)
    slots = [slot for slot in range(3) for _ in range(len(mixed))]
    texts, sizes = said(learner, every, slot_of_row=slots)
    alone, alone_sizes = said(learner, free, slot_of_row=[1] * 5)
    right = QUESTIONS["answer"].to_pylist()
    both = scored(learner, every, [ChoicesConfig(), RougeConfig()], slots)
    for slot in range(3):
        mine = texts[slot * len(mixed) : (slot + 1) * len(mixed)]
        assert mine[:2] + mine[7:] == chosen[slot]
        found = both.rows(slot * len(mixed), (slot + 1) * len(mixed)).values
        hits = [float(a == b) for a, b in zip(chosen[slot], right, strict=True)]
        assert found[CHOICE_ACCURACY].compressed().tolist() == hits
        assert found["rougeL_recall"].count() == 5
    middle = slice(len(mixed) + 2, len(mixed) + 7)
    assert (texts[middle], sizes[middle]) == (alone, alone_sizes)
    exact.slots.load([exact.start])


def test_a_question_has_one_score_and_other_samples_have_theirs(exact: Setting) -> None:
    asked = pa.concat_tables([samples().slice(0, 2), QUESTIONS])
    probing = [ChoicesConfig(), LikelihoodConfig(), RougeConfig()]
    whose = {
        "attack": "none",
        "track": "text",
        "dataset": "d",
        "model": "m",
        "phase": "pre_finetune",
    }
    found = tables_of(exact.learner, asked, probing, whose)
    scores = found["scores"].to_pandas()
    of_role = scores.groupby("role")["metric"].agg(set)
    assert of_role["utility"] == {CHOICE_ACCURACY}
    assert of_role["target"] == metrics_of(probing[1:])
    assert scores["role"].value_counts()["utility"] == len(QUESTIONS)
    chosen = found["answers"].to_pandas().set_index("sample_id")["answer"]
    assert all(chosen[row["sample_id"]] in row["choices"] for row in QUESTIONS.to_pylist())


def test_a_diverged_model_chooses_nothing(exact: Setting) -> None:
    gone = {name: torch.full_like(w, torch.nan) for name, w in exact.start.items()}
    exact.slots.load([gone, exact.start])
    both = pa.concat_tables([QUESTIONS, QUESTIONS])
    slots = [0] * len(QUESTIONS) + [1] * len(QUESTIONS)
    texts, sizes = said(exact.learner, both, slot_of_row=slots)
    values = scored(exact.learner, both, [ChoicesConfig()], slots).values
    accuracy = values[CHOICE_ACCURACY]
    assert (texts[:4], sizes[:4], accuracy[:4].tolist()) == ([""] * 4, [0] * 4, [0.0] * 4)
    assert all(texts[4:])
    exact.slots.load([exact.start])
