"""Verdicts of an audit on made-up scores: each word, its evidence, its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from distforget.analysis.requests import WORDS, answered
from distforget.auditing import (
    ALONE,
    ENHANCED,
    GROUP,
    MOST_GROUPS,
    TOGETHER,
    ordered,
    requests_of,
    study_of,
)
from distforget.cli.auditing import settings_of
from distforget.errors import UsageError
from distforget.method_choice import PLACEBO
from distforget.report.requests import forget_list, page, print_requests, table, write_requests

KM = "rougeL_recall"


def rows(similar: dict[str, list[int]]) -> list[dict[str, Any]]:
    """A file as `similar` writes it: clusters of the similar samples by target."""
    found = [row("target", name, 0, f"about {name}") for name in similar]
    number = 0
    for name, groups in similar.items():
        for cluster in groups:
            number += 1
            found.append(row("similar", name, cluster, f"like {name} {number}", number))
    return found + [row("other", "", 0, f"other {i}", 100 + i) for i in range(3)]


def row(role: str, name: str, cluster: int, asked: str, number: int = 0) -> dict[str, Any]:
    return {"role": role, "target_id": name, "cluster": cluster, "sample_id": number,
            "question": f"{asked}?", "answer": f"{asked}."}  # fmt: skip


def test_requests_with_most_groups_come_first() -> None:
    few, many = requests_of(rows({"few": [1, 1], "many": [2, 1, 2, 3]}))[::-1]
    assert (few.target_id, few.groups) == ("few", [])  # one group is all there is
    assert (many.target_id, many.groups) == ("many", [[1, 3], [2], [4]])


def test_no_more_than_the_largest_groups_are_tried() -> None:
    (one,) = requests_of(rows({"x": [1, 2, 3, 4, 5, 5]}))
    assert len(one.groups) == MOST_GROUPS
    assert one.groups[0] == [5, 6]


def test_the_study_unlearns_each_request_in_all_ways(tmp_path: Path) -> None:
    requests = requests_of(rows({"none": [], "b": [1], "a": [1, 2]}))
    study = study_of(
        tmp_path / "d.jsonl", requests, 3, "org/tuned", "org/base", "NPO_GDN", {"steps": 2},
        name="audit", dtype="float32",
    )  # fmt: skip
    ways = {m.variant_name: (m.enhanced and m.enhanced.similar, m.targets) for m in study.methods}
    assert ways == {
        ALONE: (None, 0),
        TOGETHER: (((1, 2), (1,)), 2),
        ENHANCED: (((1, 2), (1,)), 2),
        f"{GROUP}1": (((1,),), 1),
        f"{GROUP}2": (((2,),), 1),
    }
    gammas = {m.variant_name: m.enhanced.gamma for m in study.methods if m.enhanced}
    assert gammas[TOGETHER] == 0 < gammas[ENHANCED]
    assert [r["question"] for r in ordered(requests, [])][:2] == ["about a?", "about b?"]
    assert requests[2].target_id == "none"  # unlearned alone, and in no other way


def test_without_similar_samples_there_is_noise_alone(tmp_path: Path) -> None:
    requests = requests_of(rows({"a": []}))
    study = study_of(
        tmp_path / "d.jsonl", requests, 3, "org/tuned", "", "GA", {}, name="audit", dtype="float32"
    )
    assert [m.variant_name for m in study.methods] == [ALONE, "enhanced-low"]


def findings(
    before: float, after: dict[str, float], similar_after: list[float], groups: list[int],
    floor: float = 0.0, noise: float = 0.0, lost: dict[str, float] | None = None,
) -> Any:  # fmt: skip
    """What is found of one request with these scores."""
    requests = requests_of(rows({"x": groups}))
    study = study_of(
        Path("d.jsonl"), requests, 3, "org/tuned", "org/base", "GA", {}, name="a", dtype="float32"
    )
    samples = [(0, "target", 1, None)]
    samples += [(1 + i, "similar", 1, i + 1) for i in range(len(groups))]
    samples += [(50 + i, "other", None, None) for i in range(3)]
    said: list[dict[str, Any]] = []

    def add(phase: str, variant: str | None, values: dict[int, float]) -> None:
        for number, value in values.items():
            said.append({"phase": phase, "variant": variant, "unlearned": 1 if variant else None,
                         "sample_id": number, "value": value})  # fmt: skip

    others = dict.fromkeys((50, 51, 52), 0.9)
    add("pre_finetune", None, {0: floor, **others})
    add("pre_unlearn", None, {0: before, **dict.fromkeys((50, 51, 52), 0.95)})
    for variant, value in {**after, PLACEBO: before - noise}.items():
        mine = similar_after if variant == ALONE else [0.0] * len(groups)
        left = {number: value - (lost or {}).get(variant, 0) for number, value in others.items()}
        add("post_unlearn", variant, {0: value, **dict(enumerate(mine, 1)), **left})
    scores = pd.DataFrame(said).assign(metric=KM, attack="none")
    cells = [{"state": "done", "unlearned": 1, "variant": v} for v in (*after, PLACEBO)]
    tables = {
        "samples": pd.DataFrame(
            samples, columns=["sample_id", "role", "target_index", "similar_rank"]
        ),
        "scores": scores,
        "answers": scores.assign(answer="It is so."),
        "cells": pd.DataFrame(cells),
    }
    (found,) = answered(study, requests, {n: pa.Table.from_pandas(t) for n, t in tables.items()})
    return found


@pytest.mark.parametrize(
    ("before", "alone", "similar", "word"),
    [
        (0.2, 0.2, [0.9], "unknown"),
        (1.0, 0.1, [0.2], "forgotten"),
        (1.0, 0.1, [0.6], "told"),
        (1.0, 0.4, [0.0], "in part"),
        (1.0, 0.8, [0.7], "kept"),
        (1.0, 0.8, [0.1], "known"),
    ],
)
def test_each_verdict(before: float, alone: float, similar: list[float], word: str) -> None:
    found = findings(before, {ALONE: alone, TOGETHER: alone}, similar, [1])
    assert found.verdict == word
    assert set(WORDS) >= {word}


def test_knowledge_counts_from_what_the_base_model_says() -> None:
    found = findings(0.9, {ALONE: 0.6}, [], [], floor=0.5)
    assert found.before == pytest.approx(0.8)
    assert found.after[ALONE] == pytest.approx(0.2)
    assert found.verdict == "forgotten"


def test_the_group_that_lowers_it_is_recommended() -> None:
    after = {ALONE: 0.8, TOGETHER: 0.4, f"{GROUP}1": 0.75, f"{GROUP}2": 0.3}
    found = findings(1.0, after, [0.9, 0.9, 0.6], [1, 1, 2])
    assert [kept.row["sample_id"] for kept in found.recommended] == [3]
    assert found.kept[0].effect == found.effect == pytest.approx(0.5)
    assert (found.best, found.sureness) == (f"{GROUP}2", "clear")


def test_what_does_more_damage_is_not_recommended() -> None:
    after = {ALONE: 0.8, TOGETHER: 0.5, f"{GROUP}1": 0.1, f"{GROUP}2": 0.7}
    found = findings(1.0, after, [0.9, 0.9], [1, 2], lost={f"{GROUP}1": 0.3})
    assert found.best == TOGETHER
    assert len(found.recommended) == 2


def test_if_similar_samples_still_tell_it_those_are_recommended_that_silence_them() -> None:
    found = findings(1.0, {ALONE: 0.1, TOGETHER: 0.1}, [0.9, 0.2], [1, 1])
    assert (found.verdict, found.best, found.sureness) == ("told", TOGETHER, "clear")
    assert found.effect == pytest.approx(0.9)
    assert len(found.recommended) == 2


def test_if_only_all_together_lower_it_all_are_recommended() -> None:
    after = {ALONE: 0.8, TOGETHER: 0.3, f"{GROUP}1": 0.78, f"{GROUP}2": 0.8}
    found = findings(1.0, after, [0.9, 0.9], [1, 2])
    assert sorted(kept.row["sample_id"] for kept in found.recommended) == [1, 2]


def test_a_way_that_brings_the_target_back_silences_nothing() -> None:
    found = findings(1.0, {ALONE: 0.1, TOGETHER: 0.6}, [0.9, 0.2], [1, 1])
    assert (found.verdict, found.best, found.recommended) == ("told", ALONE, [])


def test_what_chance_does_too_is_no_effect() -> None:
    found = findings(1.0, {ALONE: 0.8, TOGETHER: 0.6}, [0.9], [1], noise=0.3)
    assert (found.recommended, found.best) == ([], ALONE)
    assert found.sureness == "no measurable difference"
    assert found.damage[ALONE] == pytest.approx(-0.05 / 0.1)


def test_a_request_whose_cell_failed_is_left_out() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        findings(1.0, {TOGETHER: 0.2}, [0.5], [1])


def test_words_table_and_page_say_the_same(tmp_path: Path) -> None:
    after = {ALONE: 0.8, TOGETHER: 0.2, ENHANCED: 0.4}
    found = findings(1.0, after, [0.9, 0.9], [1, 1])
    console = Console(record=True, width=200)
    print_requests([found], console)
    said = console.export_text()
    assert "still known, through 2 similar samples" in said
    assert "1.00 before; after unlearning: 0.80 (the request alone), 0.20 (with its" in said
    (row_,) = table([found]).to_pylist()
    assert (row_["verdict"], row_["alone"], row_["still_known"]) == ("kept", 0.8, 2)
    assert row_["recommended"] == [1, 2]
    paths = write_requests([found], {"model": "<my> & model"}, tmp_path)
    text = paths["page"].read_text("utf-8")
    assert "still known, through 2 similar samples" in text
    assert "&lt;my&gt; &amp; model" in text
    listed = [json.loads(line) for line in paths["recommended forget list"].open()]
    assert [one["role"] for one in listed] == ["target", "similar", "similar"]


def test_the_page_shows_markup_of_data_as_text() -> None:
    found = findings(1.0, {ALONE: 0.8}, [0.9], [1])
    found.kept[0].row["answer"] = "<script>alert(1)</script>"  # type: ignore[index]
    assert "<script" not in page([found], {})
    assert re.search(r"&lt;script&gt;", page([found], {}))


def test_what_is_not_known_is_on_no_forget_list() -> None:
    assert forget_list([findings(0.1, {ALONE: 0.1}, [], [])]) == []


@pytest.mark.parametrize("wrong", ["steps", "=3", "steps=", "a=1,b"])
def test_a_setting_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="is not name=value"):
        settings_of(wrong)


def test_settings_are_numbers_where_they_can_be() -> None:
    assert settings_of("steps=3, learning_rate=1e-5,random_answer=list") == {
        "steps": 3, "learning_rate": 1e-5, "random_answer": "list",
    }  # fmt: skip
