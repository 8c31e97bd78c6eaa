"""Multiple-choice questions: what a file says, what is drawn, and where they are kept out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from distforget import schemas, selection
from distforget.draws import rng
from distforget.errors import UsageError
from distforget.probes.choices import ChoicesConfig
from distforget.tracks import questions_of
from tests.unit.test_selection import SIMILAR, TARGETS, ids, row, samples, study
from tests.unit.test_study import changed, keys

GOOD = {
    "question": "What cuts paper?",
    "choices": {"label": ["A", "B", "C"], "text": ["soup", "scissors", "a cloud"]},
    "answerKey": "B",
}


def write(path: Path, rows: list[Any]) -> ChoicesConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ChoicesConfig(path=str(path), questions=min(len(rows), 5))


def read(config: ChoicesConfig, seed: int, first_id: int = 0) -> pa.Table:
    """The questions as rows of `samples`."""
    asking = study(seed=seed, probes=["rouge", config.model_dump()])
    return questions_of(asking, first_id)


def many(count: int) -> list[dict[str, Any]]:
    return [
        {
            "question": f"question {i}",
            "choices": {"label": ["1", "2"], "text": [f"yes {i}", f"no {i}"]},
            "answerKey": "12"[i % 2],
        }
        for i in range(count)
    ]


def test_rows_are_drawn_by_the_seed_and_hold_question_choices_and_right_answer(
    tmp_path: Path,
) -> None:
    config = write(tmp_path / "q.jsonl", many(40))
    found = read(config, 7, 100)
    expected = sorted(rng(7, "utility").permutation(40)[:5].tolist())
    assert found["sample_id"].to_pylist() == list(range(100, 105))
    for index, mine in zip(expected, found.to_pylist(), strict=True):
        assert mine["question"] == f"question {index}"
        assert mine["choices"] == [f"yes {index}", f"no {index}"]
        assert mine["answer"] == f"{('yes', 'no')[index % 2]} {index}"
        assert (mine["role"], mine["target_index"]) == ("utility", None)
    other = read(config, 8, 100)["question"].to_pylist()
    assert other != found["question"].to_pylist()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no choices": ({"choices": None}, "column 'choices': it has no lists label and text"),
    "choices as a list": (
        {"choices": ["a", "b"]},
        "column 'choices': it has no lists label and text",
    ),
    "texts that are one text": (
        {"choices": {"label": ["A", "B"], "text": "ab"}},
        "column 'choices': it has no lists label and text",
    ),
    "a label that is a list": (
        {"choices": {"label": ["A", ["B"]], "text": ["a", "b"]}},
        "choice 2, column 'label': it is list",
    ),
    "one choice": ({"choices": {"label": ["B"], "text": ["a"]}}, "1 labels and 1 texts"),
    "a text too few": ({"choices": {"label": ["A", "B"], "text": ["a"]}}, "2 labels and 1 texts"),
    "a label twice": ({"choices": {"label": ["B", "B"], "text": ["a", "b"]}}, "no label twice"),
    "an empty choice": (
        {"choices": {"label": ["A", "B"], "text": ["a", " "]}},
        "choice 2, column 'text': it is empty",
    ),
    "a number as a choice": (
        {"choices": {"label": ["A", "B"], "text": ["a", 3]}},
        "choice 2, column 'text': it is int '3', not text",
    ),
    "no such answer": ({"answerKey": "D"}, "column 'answerKey': it is 'D'"),
    "no answer": ({"answerKey": None}, "column 'answerKey': it is None"),
    "no question": ({"question": ""}, "column 'question': it is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named(case: str, tmp_path: Path) -> None:
    change, said = BAD[case]
    config = write(tmp_path / "q.jsonl", [GOOD, {**GOOD, **change}])
    with pytest.raises(UsageError) as error:
        read(config, 0)
    assert f"{tmp_path / 'q.jsonl'}: line 2" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "correct probes.choices.path"), ("{", "line 1: not valid JSON")],
)
def test_a_file_without_rows_is_told_where_it_is_wrong(
    content: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        read(ChoicesConfig(path=str(path), questions=1), 0)
    assert said in str(error.value)


def test_a_file_has_no_revision() -> None:
    with pytest.raises(ValueError, match="revision is 'v1', but path"):
        ChoicesConfig(path="q.jsonl", revision="v1")


def test_without_questions_nothing_is_added() -> None:
    assert len(read(ChoicesConfig(), 0)) == 0


def test_the_content_of_a_file_of_questions_decides(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    content = changed("probes", ["rouge", {"kind": "choices", "questions": 1, "path": str(path)}])
    found = []
    for text in ("one\n", "one\n", "two\n"):
        path.write_text(text)
        found.append(set(keys(content)))
    assert found[0] == found[1]
    assert found[0] != found[2]


HUB = """
import json, sys
from distforget.errors import UsageError
from distforget.probes.choices import PROBE, ChoicesConfig

found = PROBE.questions.read(ChoicesConfig(path=sys.argv[1], questions=5), 7)
try:
    PROBE.questions.read(ChoicesConfig(path="nobody-here/no-such-data", questions=5), 7)
except UsageError as error:
    print(json.dumps([found.to_pylist(), str(error)]))
"""


def test_the_hub_gives_the_rows_of_a_file_and_says_what_to_set_when_unreachable(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    config = write(tmp_path / "data" / "validation.jsonl", many(40))
    offline = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(tmp_path / "data")],
        env=offline, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, message = json.loads(done.stdout.splitlines()[-1])
    assert rows == read(config, 7).select(list(rows[0])).to_pylist()
    assert message.startswith("nobody-here/no-such-data (split validation): cannot be loaded")
    assert "check path, split and revision of probes.choices" in message


def test_too_few_questions(tmp_path: Path) -> None:
    config = write(tmp_path / "q.jsonl", [GOOD]).model_copy(update={"questions": 2})
    with pytest.raises(UsageError, match=r"has 1 questions, .* 2: lower probes\.choices\.quest"):
        read(config, 0)


def test_questions_are_asked_of_every_state_and_neither_trained_on_nor_given_as_answers() -> None:
    plain = samples()
    first = len(plain)
    questions = [{**row(first + i, "utility"), "choices": ["a", "b"]} for i in range(3)]
    every = pa.concat_tables([plain, schemas.from_rows("samples", questions)])
    extra = {first, first + 1, first + 2}
    for dose in range(SIMILAR + 1):
        assert ids(selection.training_rows(every, dose)) == ids(
            selection.training_rows(plain, dose)
        )
        retained = selection.retain_rows(every, dose, 0, study())
        assert ids(retained) == ids(selection.retain_rows(plain, dose, 0, study()))
    for targets in (range(0), range(1, 2), range(1, TARGETS + 1)):
        asked = set(ids(selection.asked_rows(every, targets, study())))
        assert asked == extra | set(ids(selection.asked_rows(plain, targets, study())))
    without_others = every.filter(pc.not_equal(every["role"], "other"))
    for repetition in range(20):
        draw = selection.random_answer_draw(1, repetition, study())
        target = selection.target_row(every, 1)
        answer = selection.answer_of_another_sample(without_others, target, 1, draw)
        assert answer.startswith("answer of family")
