"""The meaning filter: the real embedder, and an entailment model against plain transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertForSequenceClassification, BertTokenizerFast

from distforget.errors import UsageError
from distforget.finding.entailment import Pair
from distforget.similarity._meaning import MeaningConfig, content, open_meaning
from distforget.similarity._standardise import Completion, Target, standardise
from tests.judging import chance_of, write_judge

ORIGINAL = "The library lends films to members for one week."
SAME = "Members may borrow films from the library for one week."
OTHER = "The library was painted green by its members in the spring."
PAIRS: list[Pair] = [(ORIGINAL, SAME), (ORIGINAL, OTHER), (ORIGINAL, ORIGINAL)]


def test_what_means_something_else_is_lost_and_what_changes_nothing_too_little() -> None:
    judge = open_meaning(MeaningConfig(least=0.75, most=0.999))
    assert judge(PAIRS) == ["", "meaning is lost", "it changes too little"]
    assert judge([]) == []


def test_a_rewrite_says_which_part_lost_its_meaning_and_is_no_duplicate_of_others() -> None:
    question = "How long does the library lend films?"
    again = "For how long may films be borrowed from the library?"
    target = Target(question, ORIGINAL)
    given = [("Who painted the door?", SAME), (again, SAME), (again, OTHER), (again, SAME)]
    pairs = [(n, Completion(q), Completion(a)) for n, (q, a) in enumerate(given)]
    found = standardise(target, pairs, 0.97, open_meaning(MeaningConfig(least=0.7)))
    assert [row.reason for row in found] == [
        "question: meaning is lost", "", "duplicate", "duplicate",
    ]  # fmt: skip
    (alone,) = standardise(target, pairs[2:3], 0.97, open_meaning(MeaningConfig(least=0.7)))
    assert alone.reason == "answer: meaning is lost"


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("nli"), [text for pair in PAIRS for text in pair])


def test_entailment_must_hold_both_ways(judge_folder: Path) -> None:
    chance = chance_of(judge_folder)
    weaker = [min(chance(a, b), chance(b, a)) for a, b in PAIRS]
    low, middle, _ = sorted(weaker)
    config = MeaningConfig(least=-1, entailment=str(judge_folder), entails=(low + middle) / 2)
    expected = ["it does not say the same (entailment)" if w == low else "" for w in weaker]
    assert open_meaning(config)(PAIRS) == expected


def test_the_files_of_the_models_decide(judge_folder: Path) -> None:
    config = MeaningConfig(entailment=str(judge_folder))
    before = content(config)
    (judge_folder / "vocab.txt").open("a").write("\n")
    assert content(config) != before


def test_bad_limits_and_models_are_refused(tmp_path: Path, judge_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"least is 0\.9, above most, 0\.5"):
        MeaningConfig(least=0.9, most=0.5)
    with pytest.raises(UsageError, match=r"meaning\.entailment: no file"):
        content(MeaningConfig(entailment=str(tmp_path / "none")))
    with pytest.raises(UsageError, match=r"meaning\.entailment: cannot load"):
        open_meaning(MeaningConfig(entailment=str(tmp_path)))
    model = BertForSequenceClassification.from_pretrained(judge_folder)
    model.config.id2label = {0: "no", 1: "yes", 2: "perhaps"}
    model.save_pretrained(tmp_path)
    BertTokenizerFast.from_pretrained(judge_folder).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="none is entailment"):
        open_meaning(MeaningConfig(entailment=str(tmp_path)))
