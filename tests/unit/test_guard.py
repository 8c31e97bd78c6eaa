"""Metrics that cannot see a study's answers are refused, with file, row and fix."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distforget.errors import UsageError
from distforget.metrics import UNICODE
from distforget.probes import free_answers, probe_of
from distforget.probes.rouge import RougeConfig, refuse_blind
from distforget.rouge import need_unicode_words
from distforget.selection import refuse_blind_probes
from distforget.study import Study
from distforget.tracks import samples_of
from tests.conftest import study_content


def asked(tmp_path: Path, answers: list[str], others: int | None = None, **rouge: Any) -> Study:
    """A study of a file whose first row is the target and the others are asked, too."""
    rows = [{"question": f"q {i}", "answer": answer} for i, answer in enumerate(answers)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "source": {"kind": "file", "path": str(path)},
        "targets": 1,
        "similar": {"per_target": 0},
    }
    content = study_content(
        "unread",
        data={**data, "others": len(rows) - 1},
        doses=[0],
        unlearn_targets=1,
        verify={"others": len(rows) - 1 if others is None else others},
        probes=[{"kind": "rouge", **rouge}],
    )
    return Study.model_validate(content)


def check(study: Study) -> None:
    refuse_blind_probes(study, samples_of(study.data, study.seed))


@pytest.mark.parametrize(
    ("answer", "verify", "words"),
    [
        ("他出生在青岛。", {"words": "rouge-score"}, ["rouge-score", "words of the p", "0.00"]),
        (
            "他出生在第0号城镇。",
            {"words": "rouge-score"},
            ["rouge-score", "words of the p", "0.11"],
        ),
        ("?!…", {}, ["rougeL_recall", "letter or digit"]),
        (
            "Paris",
            {"metrics": ["rougeL_recall", "rouge2_recall"]},
            ["rouge2_recall", "pairs of words", "metrics"],
        ),
    ],
)
def test_refused(tmp_path: Path, answer: str, verify: dict[str, Any], words: list[str]) -> None:
    study = asked(tmp_path, ["two words", answer], **verify)
    with pytest.raises(UsageError) as error:
        check(study)
    for word in ["data file: row 2 of its source, column 'answer'", answer, *words]:
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
    ("answers", "verify", "suffix"),
    [
        (["plain", "ASCII – or so"], {}, ""),
        (["plain", "Zürich"], {}, UNICODE),
        (["plain", "Zürich"], {"words": "rouge-score"}, ""),
        (["plain", "ASCII"], {"words": "unicode"}, UNICODE),
        # What decides is the whole dataset, asked or not.
        (["plain", "Zürich"], {"others": 0}, UNICODE),
    ],
)
def test_the_dataset_decides_which_words_are_counted(
    tmp_path: Path, answers: list[str], verify: dict[str, Any], suffix: str
) -> None:
    study = asked(tmp_path, answers, **verify)
    samples = samples_of(study.data, study.seed)
    other_scripts = need_unicode_words(free_answers(samples))
    evidence = SimpleNamespace(
        samples=samples, answers=lambda: samples["answer"].to_pylist(), other_scripts=other_scripts
    )
    (config,) = study.probes
    found = probe_of(config).run(evidence, config).values
    assert set(found) == {f"{name}{suffix}" for name in RougeConfig().metrics}


def test_any_metric_can_be_held_to_perfect_answers() -> None:
    refuse_blind("bits", [1.0, 1 - 1e-9], ["a", "b"], str.upper, "mend it")
    with pytest.raises(UsageError, match=r"^B, column 'answer': bits cannot see 'b'.*; mend it$"):
        refuse_blind("bits", [1.0, 0.99], ["a", "b"], str.upper, "mend it")
    with pytest.raises(UsageError, match=r"scores nan"):
        refuse_blind("bits", [float("nan")], ["a"], str.upper, "mend it")
