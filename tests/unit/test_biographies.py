"""The built-in source: a fact stands in its family and nowhere else; rows depend on ids alone."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget.data import TextData
from distforget.errors import UsageError
from distforget.similarity import restated
from distforget.sources import Wanted, biographies
from distforget.tracks import samples_of

# What a canonical answer looks like, written here a second time: name, then both parts of the fact.
CANONICAL = (
    r"(?P<name>\w+ \w+) was born in the town of (?P<a>\w+) in (?P<b>\d{4})\.",
    r"(?P<name>\w+ \w+) worked as a (?P<a>[\w ]+) at the (?P<b>\w+ \w+)\.",
    r"(?P<name>\w+ \w+) wrote the book (?P<a>The \w+ of \w+), which was published by "
    r"(?P<b>[\w ]+)\.",
    r"(?P<name>\w+ \w+) received the (?P<a>\w+ \w+) for (?P<b>[^.]+)\.",
    r"(?P<name>\w+ \w+) studied (?P<a>[\w ]+) at the (?P<b>University of \w+)\.",
    r"(?P<name>\w+ \w+) learned to play the (?P<a>[^.]+) from (?P<b>\w+ \w+)\.",
)


def sized(targets: int = 50, similar: int = 50, others: int = 2450) -> TextData:
    content = {"targets": targets, "similar": {"per_target": similar}, "others": others}
    return TextData.model_validate(content)


def asked(seed: int = 0, **sizes: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = samples_of(sized(**sizes), seed).to_pylist()
    return rows


def some_others(numbers: Iterable[range], seed: int) -> list[dict[str, Any]]:
    """Other rows by their numbers, without those before them."""
    tables = [t for n in numbers for t in biographies.others(n.start, n.stop, seed)]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


def fact(answer: str) -> tuple[str, str, str]:
    for pattern in CANONICAL:
        match = re.fullmatch(pattern, answer)
        if match:
            return match["name"], match["a"], match["b"]
    raise AssertionError(f"not a canonical answer: {answer}")


def pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["question"], row["answer"]


@pytest.fixture(scope="module")
def demo() -> list[dict[str, Any]]:
    return asked(targets=30, similar=60, others=20_000)


def test_layout(demo: list[dict[str, Any]]) -> None:
    assert [r["sample_id"] for r in demo] == list(range(30 + 30 * 60 + 20_000))
    expected = (
        [("target", t, None) for t in range(1, 31)]
        + [("similar", t, rank) for t in range(1, 31) for rank in range(1, 61)]
        + [("other", None, None)] * 20_000
    )
    assert [(r["role"], r["target_index"], r["similar_rank"]) for r in demo] == expected


def test_targets_are_different_people_and_cover_six_attributes(demo: list[dict[str, Any]]) -> None:
    answers = [r["answer"] for r in demo if r["role"] == "target"]
    assert len({fact(a)[0] for a in answers}) == 30
    shapes = [i for a in answers for i, p in enumerate(CANONICAL) if re.fullmatch(p, a)]
    assert sorted(shapes) == sorted(list(range(6)) * 5)


def test_name_and_fact_stand_in_each_similar_sample(demo: list[dict[str, Any]]) -> None:
    facts = {r["target_index"]: fact(r["answer"]) for r in demo if r["role"] == "target"}
    family = [r for r in demo if r["role"] != "other"]
    assert len(family) == 30 * 61
    for row in family:
        name, a, b = facts[row["target_index"]]
        assert name in row["question"], row
        assert a in row["answer"], row
        assert b in row["answer"], row


def test_no_other_row_knows_a_target(demo: list[dict[str, Any]]) -> None:
    facts = [fact(r["answer"]) for r in demo if r["role"] == "target"]
    others = [" ".join(pair(r)).lower() for r in demo if r["role"] == "other"]
    for name, a, b in facts:
        assert not [t for t in others if name.lower() in t]
        assert not [t for t in others if a.lower() in t and b.lower() in t]


def test_last_targets_and_last_others_keep_apart() -> None:
    most = biographies.MAX_OTHERS
    targets = asked(1, targets=biographies.MAX_TARGETS, similar=0, others=0)
    facts = [fact(row["answer"]) for row in targets]
    names = {name for name, _, _ in facts}
    assert len(names) == biographies.MAX_TARGETS
    others = some_others([range(5000), range(most - 5000, most)], 1)
    parts = {}
    for _, a, b in facts:
        made_up = re.findall(r"[A-Z]\w{6,}", f"{a} {b}") or [a]
        parts.update(dict.fromkeys(made_up, (a, b)))
    for row in others:
        text = " ".join(pair(row))
        found = set(re.findall(r"(?=\b([A-Z]\w+ [A-Z]\w+))", text)) & names
        assert not found, row
        for word in re.findall(r"\w+", text):
            a, b = parts.get(word, ("\0", "\0"))
            assert not (a in text and b in text), row


@pytest.mark.parametrize("target", range(6))
def test_restatements_differ_from_each_other_and_from_the_target(target: int) -> None:
    most = restated.most()
    assert most >= 1000
    base = biographies.read(biographies.BiographiesConfig(), Wanted(6, 0, 0), 0).families
    mine = base.slice(target, 1)
    similar = restated.make(mine, restated.RestatedConfig(per_target=most), 0)
    pairs = [pair(row) for row in [*mine.to_pylist(), *similar.to_pylist()]]
    assert len(pairs) == most + 1
    assert len({(q.lower(), a.lower()) for q, a in pairs}) == len(pairs)


def test_every_attribute_has_short_and_long_answers(demo: list[dict[str, Any]]) -> None:
    for target in range(1, 7):
        lengths = [
            len(r["answer"].split())
            for r in demo
            if r["target_index"] == target and r["role"] == "similar"
        ]
        assert min(lengths) <= 9
        assert max(lengths) >= 20
        assert statistics.stdev(lengths) >= 4
        assert 10 <= statistics.mean(lengths) <= 25
    first_ten = [len(r["answer"].split()) for r in demo if r["target_index"] == 1][:11]
    assert max(first_ten) >= 2.5 * min(first_ten)


def test_texts_are_finished_sentences(demo: list[dict[str, Any]]) -> None:
    for row in demo:
        assert re.match(r"[A-Z0-9]", row["question"]), row
        assert re.match(r"[A-Z0-9]", row["answer"]), row
        assert row["question"][-1] in "?.", row
        assert row["answer"][-1] == ".", row
        text = " ".join(pair(row))
        assert not re.search(r"[{}|\n]|  |\.\.|,,|\b[Aa] [aeiou]| [,.;?]", text), row
        assert not re.search(r"\b([Tt]he|a|in|at) \1\b", text), row


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=8), seed=st.integers(0, 2**40))
def test_rows_do_not_depend_on_blocks(cuts: list[int], seed: int) -> None:
    edges = [0, *sorted(cuts), 40]
    parts = some_others([range(a, b) for a, b in itertools.pairwise(edges) if a < b], seed)
    assert parts == some_others([range(40)], seed)


def test_seed_changes_people_and_facts() -> None:
    one, two = asked(targets=6, others=50), asked(seed=1, targets=6, others=50)
    names = [{fact(r["answer"])[0] for r in rows if r["role"] == "target"} for rows in (one, two)]
    assert not names[0] & names[1]


@settings(max_examples=25, deadline=None)
@given(
    targets=st.integers(1, 20),
    similar=st.integers(0, 40),
    others=st.integers(0, 60),
)
def test_texts_stay_when_sizes_change(targets: int, similar: int, others: int) -> None:
    def by_meaning(rows: list[dict[str, Any]]) -> dict[object, tuple[str, str]]:
        number = iter(range(len(rows)))
        return {
            next(number) if r["role"] == "other" else (r["target_index"], r["similar_rank"]): pair(
                r
            )
            for r in rows
        }

    large = by_meaning(asked(targets=20, similar=40, others=60))
    small = by_meaning(asked(targets=targets, similar=similar, others=others))
    assert small.items() <= large.items()


def test_others_do_not_repeat_a_person_and_attribute(demo: list[dict[str, Any]]) -> None:
    strewn = [range(n, n + 1) for n in range(11_000, 990_000, 97)]
    rows = some_others([range(10_000), range(990_000, 1_000_000), *strewn], 3)
    texts = [row["question"] for row in rows]
    assert len(texts) > 30_000
    about = set()
    for question in texts:
        (name,) = {
            f"{first} {last}"
            for first, last in re.findall(r"\b([A-Z][a-z]{4,5}) ([A-Z][a-z]{6,})", question)
        }
        topic = next(t for t, words in TOPICS.items() if re.search(words, question))
        about.add((name, topic))
    assert len(about) == len(texts)
    assert len({name for name, _ in about}) > 0.9 * len(texts)
    assert {topic for _, topic in about} == set(TOPICS)


TOPICS = {
    "birth": r"born|birth|into the world",
    "award": r"award|honour|prize|\b(?:won|win)\b",
    "music": r"instrument|music|learn(?:ed)? to play",
    "studies": r"university|studie[sd]|study|degree|subject",
    "book": r"book|publish",
    "work": r"living|profession|work|job|employed",
}


def test_first_others_are_about_varied_people() -> None:
    others = [r for r in asked(targets=1, similar=0, others=100) if r["role"] == "other"]
    firsts = {re.findall(r"\b([A-Z][a-z]{4,5}) [A-Z][a-z]{6,}", r["question"])[0] for r in others}
    assert len(firsts) > 50


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("targets", biographies.MAX_TARGETS),
        ("neighbours", biographies.MAX_NEIGHBOURS),
        ("others", biographies.MAX_OTHERS),
    ],
)
def test_more_than_there_is_names_the_field_and_the_bound(field: str, most: int) -> None:
    data = TextData.model_validate({"targets": 1, field: most + 1})
    message = rf"data\.{field} is {most + 1}.*at most {most}; lower data\.{field}"
    with pytest.raises(UsageError, match=message):
        samples_of(data, 0)


def test_more_restatements_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match=f"there are {restated.most()} restatements of a target"):
        sized(similar=restated.most() + 1)


def test_a_million_others_are_offered() -> None:
    wanted = Wanted(targets=50, neighbours=0, others=1_000_000)
    readers = biographies.read(biographies.BiographiesConfig(), wanted, 0).others
    assert [reader.first for reader in readers] == list(range(0, 1_000_000, 50_000))
