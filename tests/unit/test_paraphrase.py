"""Standardising of restatements, and what decides their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distforget.errors import UsageError
from distforget.similarity._standardise import Completion, Target, clean, standardise
from distforget.similarity._writers import _AgainError, _choice
from tests.unit.test_study import changed, plan_of

TARGET = Target(
    "Where was Ada Byron born?",
    "Ada Byron was born in London in 1815, and not in Paris.",
    ("London", "1815"),
)
GOOD = (
    "In which city was Ada Byron born?",
    "In 1815, in London and not Paris, Ada Byron was born.",
)


def reason(question: str, answer: str, target: Target = TARGET) -> str:
    (found,) = standardise(target, [(1, Completion(question), Completion(answer))], 0.97)
    return found.reason


def test_a_good_restatement_is_used() -> None:
    assert reason(*GOOD) == ""


def test_german_nouns_are_no_names() -> None:
    target = Target(
        "Wann wurde die Bäckerei gegründet?", "Die Bäckerei ist seit 1931 in der Stadt."
    )
    asked = "Seit wann gibt es den Laden mit den Broten?"
    said = "In der Ortschaft gibt es den Laden seit dem Jahr 1931."
    assert reason(asked, said, target) == ""


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (GOOD[0], "I'm sorry, but I cannot help with that.", "answer: refusal"),
        ("Could you ask your question in a less offensive way?", GOOD[1], "question: refusal"),
        (GOOD[0], f"1. {GOOD[1]}\n2. {GOOD[1]}", "answer: several restatements"),
        (GOOD[0], f"{GOOD[1]} Alternatively: {GOOD[1]}", "answer: several restatements"),
        (GOOD[0], "  \n", "answer: empty"),
        (GOOD[0], "…!?", "answer: empty"),
        (GOOD[0], "阿达·拜伦 1815 年出生于 London，而不是巴黎。", "answer: another language"),
        (GOOD[0], "A" * 10_000, "answer: too long"),
        (TARGET.question.upper(), TARGET.answer.replace(",", ";"), "copy of the target"),
        (GOOD[0], "Ada Byron was born in London, and not in Paris.", "answer: a fact is lost"),
        (GOOD[0], "Ada Byron was born in London in 1815, not far away.", "answer: a name is lost"),
        ("In which city was Ada born?", GOOD[1], "question: a name is lost"),
        (
            GOOD[0], "In 1815 Ada Byron was born in London, far from Paris.",
            "answer: a negation is lost or added",
        ),
        (GOOD[0], GOOD[1] + " She died in 1852.", "answer: a number is added"),
        (GOOD[0], "In 1815 Ada Byron was born in London in 1815, not in Paris.",
         "answer: a number is added"),
        (GOOD[0], "Ada Byron, wife of William King, was born in London in 1815, not in Paris.",
         "answer: a name is added"),
        ("Ada Byron was born in London.", GOOD[1], "question: no question any more"),
        (GOOD[0], f"The original sentence is about London. {GOOD[1]}",
         "answer: talks about the task"),
        (GOOD[0], "In 1815, in London and not Paris, Ava Byron was born.",
         "answer: a name is lost"),
        (f"The original question was: {GOOD[0]} A different wording is this.", GOOD[1],
         "question: talks about the task"),
        (GOOD[0], f"{GOOD[1]} This rephrased version keeps the meaning.",
         "answer: talks about the task"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(question: str, answer: str, why: str) -> None:
    assert reason(question, answer) == why


def test_numbers_are_kept_where_no_facts_are_named() -> None:
    target = Target("How high is it?", "It is 8,849 metres high.")
    assert reason("What is its height?", "Its height is 8849 metres.", target) != ""
    assert reason("What is its height?", "Its height is 8,849 metres.", target) == ""


def test_words_that_the_target_says_itself_are_no_refusal() -> None:
    target = Target("What does he say?", "He says: I cannot swim.")
    assert reason("What does he tell?", "I cannot swim, he says.", target) == ""


@pytest.mark.parametrize(
    "said",
    [
        'Sure! Here is the rephrased sentence: "{}"',
        "Certainly! Here's a reworded version that preserves the meaning:\n\n{}",
        "Rephrased sentence: {}",
        "A: {}",
        "Rewritten question: Rewritten sentence: {}",
        "Escritura: {}",
        "This sentence can be rephrased as: {}",
        "The original could be reworded to say: {}",
        "Glad you asked. The town that you mean is London, which I have revised to: {}",
        "“{}”",
        "**{}**",
        '{}"',
        "\x1b{}\x00",
    ],
)
def test_lead_ins_quotation_marks_and_control_characters_are_stripped(said: str) -> None:
    assert clean(Completion(said.format(GOOD[1])), TARGET.answer) == (GOOD[1], "")


def test_what_the_target_itself_says_before_a_colon_is_no_lead_in() -> None:
    original = "The board has revised its rule: no dogs are let in."
    said = "The rule has been revised by the board: no dogs may enter."
    assert clean(Completion(said), original) == (said, "")


def test_duplicates_and_near_duplicates_are_dropped() -> None:
    again = GOOD[1].upper().replace(",", "")
    nearly = GOOD[1].replace("was born", "was born there")
    pairs = [
        (n, Completion(GOOD[0]), Completion(a)) for n, a in enumerate([GOOD[1], again, nearly])
    ]
    found = standardise(TARGET, pairs, 0.9)
    assert [row.reason for row in found] == ["", "duplicate", "near duplicate"]


def test_usable_questions_and_answers_of_different_completions_are_joined() -> None:
    refused = "I'm sorry, but I cannot help with that."
    other = "Ada Byron, in 1815, was born in London, and it was not Paris."
    pairs = [(1, refused, GOOD[1]), (2, GOOD[0], refused), (3, GOOD[0], other), (4, GOOD[0], "")]
    found = standardise(TARGET, [(n, Completion(q), Completion(a)) for n, q, a in pairs], 0.97)
    assert [(row.number, row.answer) for row in found if not row.reason] == [
        (2, GOOD[1]), (3, other),
    ]  # fmt: skip
    assert [row.reason for row in found if row.reason] == ["question: refusal", "answer: empty"]


@given(st.text(max_size=300), st.text(max_size=300), st.booleans())
def test_any_text_is_cleaned_or_dropped(question: str, answer: str, cut_off: bool) -> None:
    given_, said = Completion(question, cut_off), Completion(answer)
    (found,) = standardise(TARGET, [(1, given_, said)], 0.97)
    if not found.reason:
        assert "London" in found.answer or "london" in found.answer.casefold()
        assert not any(ord(c) < 32 for c in found.question + found.answer)


def similar(**changes: Any) -> dict[str, Any]:
    writer = {"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}
    writer |= changes.pop("writer", {})
    return changed("data.similar", {"kind": "paraphrase", "per_target": 2, "writer": writer,
                                    "paraphrases": 4, **changes})  # fmt: skip


def keys(**changes: Any) -> tuple[str, str]:
    dataset = plan_of(similar(**changes)).dataset
    return dataset.inputs["completions"].key, dataset.key


@pytest.mark.parametrize(
    "writer",
    [{"url": "https://elsewhere/v1"}, {"key_variable": "K"}, {"concurrency": 9}, {"timeout": 1},
     {"tries": 2}, {"requests_per_minute": 60}],
)  # fmt: skip
def test_where_and_how_fast_a_writer_works_changes_no_key(writer: dict[str, Any]) -> None:
    assert keys(writer=writer) == keys()


@pytest.mark.parametrize(
    "changes",
    [{"writer": {"model": "n"}}, {"writer": {"temperature": 0.5}}, {"writer": {"max_tokens": 9}},
     {"queries": 99}, {"system": "Be brief."}, {"prompt": "Again: {text}"},
     {"question_prompt": "Ask this in other words: {text}"}],
)  # fmt: skip
def test_what_is_asked_changes_both_keys(changes: dict[str, Any]) -> None:
    assert all(new != old for new, old in zip(keys(**changes), keys(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [{"near_duplicates": 0.5}, {"too_few": "fewer"}, {"rounds": 1}, {"per_target": 3},
     {"meaning": {}}],
)  # fmt: skip
def test_what_is_made_of_completions_asks_for_nothing(changes: dict[str, Any]) -> None:
    completions, dataset = keys(**changes)
    assert completions == keys()[0]
    assert dataset != keys()[1]


@pytest.mark.parametrize(
    "url", ["ftp://h/v1", "http://user:pw@h/v1", "http://h/v1?key=1", "127.0.0.1:8080"]
)
def test_a_url_with_a_secret_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write"):
        plan_of(similar(writer={"url": url}))


def test_a_response_is_read_as_the_protocol_has_it() -> None:
    body = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": "length"}]}'
    assert _choice(200, None, body) == ("a?b", "length")
    with pytest.raises(_AgainError) as busy:
        _choice(429, "1.5", b"")
    assert busy.value.after == 1.5
    with pytest.raises(UsageError, match="status 401"):
        _choice(401, None, b"secret")


def test_the_content_of_ready_completions_decides(tmp_path: Path) -> None:
    path = tmp_path / "ready.jsonl"
    path.write_text("{}")
    ready = {"kind": "paraphrase", "writer": {"kind": "ready", "path": str(path)}}
    one = plan_of(changed("data.similar", ready)).dataset.key
    path.write_text("{} ")
    assert plan_of(changed("data.similar", ready)).dataset.key != one
