"""Facts that answers state, by hand; the built-in people's; and files that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distforget import schemas
from distforget.analysis.comparisons import compare, knowledge_metrics
from distforget.data import TextData
from distforget.errors import UsageError
from distforget.metrics import FACT_RECALL
from distforget.probes.facts import recall
from distforget.tracks import samples_of
from distforget.words import states

BORN = ("Borkara", "1968")


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("Voran Polvequist was born in the town of Borkara in 1968.", 1.0),
        ("The birth of Voran Polvequist took place in Borkara in 1968.", 1.0),
        ("voran polvequist: BORKARA, 1968", 1.0),
        ("Voran Polvequist was born in the town of Borkara in 1914.", 0.5),
        ("Voran Polvequist was born in the town of Corbinda in 1914.", 0.0),
        ("Voran Polvequist was born in 2015 in the city of Vitoria, Italy.", 0.0),
        ("Borkaras in 19680", 0.0),
        ("", 0.0),
    ],
)
def test_the_share_of_facts_that_an_answer_states(answer: str, share: float) -> None:
    assert recall([answer], [BORN]).tolist() == [share]


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("Er wohnt in München.", "Mu\u0308nchen"),
        ("他于1968年出生在波尔卡拉镇。", "波尔卡拉"),
        ("彼は東京で生まれた", "東京"),
        ("Он родился в городе Боркара в 1968 году.", "боркара"),
        ("วรรณเกิดที่กรุงเทพฯ", "กรุงเทพ"),
        ("Borkara's oldest house, “The Rivers of Velmothys”", "the rivers of Velmothys"),
    ],
)
def test_facts_in_any_language(answer: str, fact: str) -> None:
    assert states(answer, fact)


@pytest.mark.parametrize(
    ("answer", "fact"),
    [("Manchen", "München"), ("He was born in 1950", "195"), ("a b c", "a c"), ("东京", "京东")],
)
def test_what_looks_alike_is_not_stated(answer: str, fact: str) -> None:
    assert not states(answer, fact)


@given(
    words=st.lists(st.sampled_from(["Borkara", "in", "1968", "he", "born"]), max_size=8),
    more=st.lists(st.sampled_from(["and", "Borkara", "1914"]), max_size=3),
)
def test_saying_more_never_states_less(words: list[str], more: list[str]) -> None:
    said, longer = " ".join(words), " ".join([*words, *more])
    expected = np.mean([fact in words for fact in BORN])
    assert recall([said], [BORN]).item() == expected
    assert recall([longer], [BORN]).item() >= expected


def test_samples_without_facts_have_no_score() -> None:
    found = recall(["Borkara", "anything"], [BORN, None])
    assert found.tolist() == [0.5, None]


def test_the_people_state_their_facts_and_strangers_do_not() -> None:
    data = TextData.model_validate(
        {
            "similar": {"per_target": 20, "paraphrases": 4},
            "targets": 12,
            "others": 200,
            "neighbours": 3,
        }
    )
    rows = samples_of(data, 3).to_pylist()
    facts = [row["facts"] for row in rows]
    assert {len(of_one) for of_one in facts} == {2}
    assert recall([row["answer"] for row in rows], facts).min() == 1
    targets = [row for row in rows if row["role"] == "target"]
    for row in rows:
        mine = row["target_index"] if row["role"] in ("target", "similar", "paraphrase") else None
        for target in targets:
            (stated,) = recall([row["answer"]], [target["facts"]])
            assert stated == 1 if mine == target["target_index"] else stated < 1


# Files.

ROWS: list[dict[str, Any]] = [
    {"question": "Where and when?", "answer": "In Borkara, in 1968.", "facts": ["Borkara", "1968"]},
    {"question": "Who?", "answer": "Nobody.", "facts": None},
]


def read(path: Path) -> list[list[str] | None]:
    sizes = {"targets": 1, "others": 1, "similar": {"per_target": 0}}
    data = TextData.model_validate({"source": {"kind": "file", "path": str(path)}, **sizes})
    found: list[list[str] | None] = samples_of(data, 0)["facts"].to_pylist()
    return found


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_facts_are_read_from_each_kind_of_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        text = 'Where and when?,"In Borkara, in 1968.",Borkara | 1968\nWho?,Nobody.,\n'
        path.write_text(f"question,answer,facts\n{text}")
    assert read(path) == [["Borkara", "1968"], None]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (["Vitoria"], r"line 1, column 'facts': 'Vitoria' is not in the answer 'In Borkara"),
        (["Borkara", ""], r"line 1, column 'facts': '' is not in the answer"),
        ([1968], r"line 1, column 'facts': it is list '\[1968\]'; write a list of texts"),
        ({"year": 1968}, r"line 1, column 'facts': it is dict"),
    ],
)
def test_bad_facts_are_named_with_their_line(facts: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{**ROWS[0], "facts": facts}, ROWS[1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=said):
        read(path)


# Verdicts.


def scores_of(metrics: dict[str, float]) -> pa.Table:
    """A target's scores before fine-tuning and after unlearning, the same on each metric."""
    rows = []
    for metric, value in metrics.items():
        for phase in ("pre_finetune", "post_unlearn"):
            after = phase == "post_unlearn"
            state = {"dose": 2, "seed": 0, "method": "GA", "variant": "plain", "unlearned": 1}
            rows.append(
                {
                    "attack": "none", "track": "text", "dataset": "d", "model": "m", "phase": phase,
                    **(state if after else {}), "sample_id": 0, "role": "target",
                    "target_index": 1, "metric": metric, "value": value if after else 0.0,
                }
            )  # fmt: skip
    return schemas.from_rows("scores", rows)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["rougeL_recall", FACT_RECALL, "answer_probability"], [FACT_RECALL, "rougeL_recall"]),
        (["rougeL_recall", "answer_probability"], ["rougeL_recall", "answer_probability"]),
        (["rougeL_recall"], ["rougeL_recall"]),
        (["rougeL_recall_unicode", FACT_RECALL], [FACT_RECALL, "rougeL_recall_unicode"]),
    ],
)
def test_the_score_to_lean_on_comes_first(there: list[str], expected: list[str]) -> None:
    scores = scores_of(dict.fromkeys(there, 0.5))
    assert knowledge_metrics("rougeL_recall", scores) == expected


def test_each_score_is_compared_with_itself() -> None:
    scores = scores_of({"rougeL_recall": 0.6, FACT_RECALL: 0.25})
    rows = compare(scores, [FACT_RECALL, "rougeL_recall"], 0.1).to_pylist()
    found = [(r["metric"], r["difference"]) for r in rows if r["quantity"] == "post-pre_finetune"]
    assert found == [(FACT_RECALL, 0.25), ("rougeL_recall", 0.6)]
