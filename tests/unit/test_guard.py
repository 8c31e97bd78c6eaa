"""Metrics that cannot see a study's answers are refused, with file, row and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distforget.study import Study, UsageError
from distforget.tracks import text
from distforget.tracks.text.guard import refuse_blind, with_words
from tests.conftest import study_content


def asked(tmp_path: Path, answers: list[str], **verify: Any) -> Study:
    """A study of a file whose first row is the target and the others are asked, too."""
    rows = [{"question": f"q {i}", "answer": answer} for i, answer in enumerate(answers)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": "file", "path": str(path), "targets": 1, "similar_per_target": 0}
    content = study_content(
        "unread",
        dataset={**data, "others": len(rows) - 1},
        doses=[0],
        unlearn_targets=1,
        verify={"others": len(rows) - 1, **verify},
    )
    return Study.model_validate(content)


def check(study: Study) -> None:
    text.check_metrics(study, text.read_rows(study.dataset, study.seed))


@pytest.mark.parametrize(
    ("answer", "verify", "words"),
    [
        ("他出生在青岛。", {"words": "rouge-score"}, ["rouge-score", "verify.words", "0.00"]),
        ("他出生在第0号城镇。", {"words": "rouge-score"}, ["rouge-score", "verify.words", "0.11"]),
        ("?!…", {}, ["rougeL_recall", "letter or digit"]),
        (
            "Paris",
            {"metrics": ["rougeL_recall", "rouge2_recall"]},
            ["rouge2_recall", "pairs of words", "verify.metrics"],
        ),
    ],
)
def test_refused(tmp_path: Path, answer: str, verify: dict[str, Any], words: list[str]) -> None:
    study = asked(tmp_path, ["two words", answer], **verify)
    with pytest.raises(UsageError) as error:
        check(study)
    for word in ["data.jsonl: line 2, column 'answer'", answer, *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("answer", "verify"),
    [
        ("他出生在青岛。", {}),
        ("Paris", {}),
        ("München", {"words": "rouge-score"}),  # as TOFU was published
        ("Paris", {"words": "unicode"}),
    ],
)
def test_taken(tmp_path: Path, answer: str, verify: dict[str, Any]) -> None:
    check(asked(tmp_path, ["two words", answer], **verify))


def test_what_is_not_asked_need_not_be_seen(tmp_path: Path) -> None:
    check(asked(tmp_path, ["two words", "?!"], others=0))


@pytest.mark.parametrize(
    ("answers", "verify", "words"),
    [
        (["plain", "ASCII – or so"], {}, "rouge-score"),
        (["plain", "Zürich"], {}, "unicode"),
        (["plain", "Zürich"], {"words": "rouge-score"}, "rouge-score"),
        (["plain", "ASCII"], {"words": "unicode"}, "unicode"),
        # What decides is the whole dataset, asked or not.
        (["plain", "Zürich"], {"others": 0}, "unicode"),
    ],
)
def test_the_dataset_decides_which_words_are_counted(
    tmp_path: Path, answers: list[str], verify: dict[str, Any], words: str
) -> None:
    study = asked(tmp_path, answers, **verify)
    samples = text.read_rows(study.dataset, study.seed)
    assert samples is not None
    assert with_words(study.verify, samples).words == words


def test_any_metric_can_be_held_to_perfect_answers() -> None:
    refuse_blind("bits", [1.0, 1 - 1e-9], ["a", "b"], str.upper, "mend it")
    with pytest.raises(UsageError, match=r"^B, column 'answer': bits cannot see 'b'.*; mend it$"):
        refuse_blind("bits", [1.0, 0.99], ["a", "b"], str.upper, "mend it")
    with pytest.raises(UsageError, match=r"scores nan"):
        refuse_blind("bits", [float("nan")], ["a"], str.upper, "mend it")
