"""Copies of a target outside its family, and rows that are too long, are told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget import schemas
from distforget.data import TextData
from distforget.tracks import samples_of
from distforget.tracks.text.doubts import copies, too_long

ADA = ("Where was Ada Lund born, and in which year?", "Ada Lund was born in Borkara in 1968.")
BO = ("Where was Bo Eng born, and in which year?", "Bo Eng was born in Velmosk in 1951.")


def samples(*rows: tuple[str, tuple[str, str], int | None]) -> Any:
    return schemas.from_rows(
        "samples",
        [
            {
                "dataset": "d", "sample_id": i, "role": role, "question": question,
                "answer": answer, "target_index": target, "source_index": 10 + i,
            }
            for i, (role, (question, answer), target) in enumerate(rows)
        ],
    )  # fmt: skip


@pytest.mark.parametrize("role", ["other", "neighbour"])
@pytest.mark.parametrize(
    "copy",
    [
        ADA,
        (ADA[0].upper(), ADA[1].replace(".", " !")),
        (ADA[0].replace("Where", "Where, then,"), ADA[1]),
    ],
)
def test_a_copy_among_rows_that_stay_is_told(role: str, copy: tuple[str, str]) -> None:
    target = 1 if role == "neighbour" else None
    (line,) = copies(samples(("target", ADA, 1), ("target", BO, 2), (role, copy, target)))
    assert line.startswith(f"1 samples with role '{role}' say the same as a target")
    assert "sample 2, row 13 of its source, as target 1" in line


def test_two_equal_targets_are_told_once() -> None:
    (line,) = copies(samples(("target", ADA, 1), ("target", BO, 2), ("target", ADA, 3)))
    assert "sample 2, row 13 of its source, as target 1" in line


def test_similar_samples_may_say_the_same() -> None:
    assert copies(samples(("target", ADA, 1), ("similar", ADA, 1), ("paraphrase", ADA, 1))) == []


def test_people_of_the_built_in_source_are_not_alike() -> None:
    data = TextData.model_validate({"targets": 30, "others": 3000, "neighbours": 3})
    assert copies(samples_of(data, 0)) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([ADA, BO, ("Who?", "Nobody.")]), min_size=1, max_size=6))
def test_each_copy_is_counted_once(others: list[tuple[str, str]]) -> None:
    found = copies(samples(("target", ADA, 1), *(("other", text, None) for text in others)))
    assert [int(line.split()[0]) for line in found] == [others.count(ADA)] * (ADA in others)


def test_long_rows_are_told_with_the_setting(tiny_model: Path) -> None:
    long = ("Where?", "In the town, " * 30)
    rows = samples(("target", ADA, 1), ("other", long, None))
    files = {"m": tiny_model / "tokenizer.json"}
    (line,) = too_long(rows, files, 60)
    assert line.startswith("model m: 1 samples have more than 60 tokens, sample 1 the most (")
    assert "finetune.max_tokens" in line
    assert too_long(rows, files, 4000) == []
