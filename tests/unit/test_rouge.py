"""ROUGE against the rouge-score package, pair by pair."""

from __future__ import annotations

import importlib.metadata
import random
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from distforget import rouge
from distforget.rouge import rouge_scores

KINDS = ("rouge1", "rouge2", "rougeL")
PARTS = ("precision", "recall", "fmeasure")
COLUMNS = [f"{kind}_{part}" for kind in KINDS for part in PARTS]

ALPHABET = (
    "aabcdeeixyz0189 \t\n\r\x00\x1c\x85\u00a0\u2028.,;:!?'\"-_()[]/\\%$&@#AEIZ"
    "éßöñçİıſKÅΣςσжДאعहि中文字ｆｕ①²½🙂👍🏽\u0301\u200d\ufeff\ud800\udfff"
)
WORDS = re.findall(
    r"\S+",
    "the cat sat on a mat The CAT running runner generally generalisation skies dying sses ies "
    "was has 2019 don't it's e-mail naïve café straße İstanbul 東京 O'Neil's a1b2 x 1.5 U.S.",
)


def close(predictions: list[str], references: list[str], use_stemmer: bool) -> None:
    """All nine numbers of all pairs are those of rouge-score, to 1e-9."""
    scorer = RougeScorer(list(KINDS), use_stemmer=use_stemmer)
    scores = [
        scorer.score(target=reference, prediction=prediction)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    table = rouge_scores(predictions, references, use_stemmer)
    assert table.schema == pa.schema([(name, pa.float64()) for name in COLUMNS])
    for kind in KINDS:
        for part in PARTS:
            expected = np.array([getattr(score[kind], part) for score in scores], dtype=float)
            found = table[f"{kind}_{part}"].to_numpy()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9, err_msg=kind + part)


def characters(draw: random.Random) -> str:
    return "".join(draw.choices(ALPHABET, k=draw.randrange(60)))


def words(draw: random.Random) -> str:
    few = draw.sample(WORDS, draw.randint(1, 6))
    return draw.choice([" ", ", ", "\n", " - "]).join(draw.choices(few, k=draw.randrange(30)))


def long(draw: random.Random) -> str:
    """Beyond the 64 tokens of one machine word."""
    return " ".join(draw.choices(WORDS, k=draw.randint(60, 200)))


def edited(draw: random.Random, text: str, others: list[str]) -> str:
    """The text as a model may give it: words dropped, replaced, said twice or moved."""
    kept: list[str] = []
    for word in text.split():
        kept += draw.choice([[word], [word], [word], [], [word, word], [draw.choice(others)]])
    if draw.random() < 0.3:
        cut = draw.randrange(len(kept) + 1)
        kept = kept[cut:] + kept[:cut]
    return " ".join(kept)


def sentences(limit: int) -> list[str]:
    """English sentences of 5 to 60 words from the descriptions of installed packages."""
    found: set[str] = set()
    for distribution in importlib.metadata.distributions():
        text = str(distribution.metadata.json.get("description", ""))
        for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text):
            if 5 <= len(sentence.split()) <= 60:
                found.add(sentence)
    return random.Random(0).sample(sorted(found), min(limit, len(found)))


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_random_pairs(use_stemmer: bool) -> None:
    draw = random.Random(1)
    makers: list[Callable[[random.Random], str]] = [characters, words, words, lambda _: ""]
    predictions = [draw.choice(makers)(draw) for _ in range(970)]
    references = [draw.choice(makers)(draw) for _ in range(970)]
    predictions += [long(draw) for _ in range(30)]
    references += [draw.choice([long, words])(draw) for _ in range(30)]
    close(predictions, references, use_stemmer)


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_real_pairs(use_stemmer: bool) -> None:
    draw = random.Random(2)
    references = sentences(700)
    assert len(references) > 100
    vocabulary = " ".join(references).split()
    references = [draw.choice(references) for _ in range(1000)]
    predictions = [edited(draw, reference, vocabulary) for reference in references]
    close(predictions, references, use_stemmer)


@given(
    st.lists(st.tuples(st.text(max_size=30), st.text("abc A.\n", max_size=30)), max_size=6),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_pairs(pairs: list[tuple[str, str]], use_stemmer: bool) -> None:
    close([a for a, _ in pairs], [b for _, b in pairs], use_stemmer)
    close([b for _, b in pairs], [b[::-1] for _, b in pairs], use_stemmer)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("", ""), ("a b", ""), ("", "a b"), ("…", "?!"), ("a", "a"), ("a a a", "a"), ("b a", "a b")],
)
def test_degenerate_pair(prediction: str, reference: str) -> None:
    close([prediction], [reference], False)


def test_known_values() -> None:
    """Worked by hand: 3 of 4 words, 1 of 3 bigrams, "police the" cut to a subsequence of 2."""
    table = rouge_scores(["the gunman kill police"], ["police kill the gunman"], False)
    assert table["rouge1_fmeasure"].to_pylist() == [1.0]
    assert table["rouge2_recall"].to_pylist() == [pytest.approx(1 / 3)]
    assert table["rougeL_precision"].to_pylist() == [0.5]


def test_no_pairs() -> None:
    table = rouge_scores([], [], True)
    assert (table.num_rows, table.column_names) == (0, COLUMNS)


def test_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="2 predictions and 1 references"):
        rouge_scores(["a", "b"], ["a"], False)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(4)
    predictions, references = [[words(draw) for _ in range(50)] for _ in range(2)]
    whole = rouge_scores(predictions, references, True)
    monkeypatch.setattr(rouge, "_TEXTS_PER_BLOCK", 7)
    monkeypatch.setattr(rouge, "_PAIRS_PER_BLOCK", 3)
    assert rouge_scores(predictions, references, True) == whole


@pytest.mark.parametrize("characters", [0, 0x110000 - 0x800])
def test_vocabulary_beyond_the_surrogates(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids across 0xD800, and (characters 0) the way for more words than Unicode has characters."""
    monkeypatch.setattr(rouge, "_CHARACTERS", characters)
    many = [f"w{i}" for i in range(0xD800 - 20, 0xD800 + 20)]
    filler = " ".join(f"w{i}" for i in range(0xD800 - 20))
    text = " ".join(many)
    table = rouge_scores(["", text], [filler, " ".join(many[10:] + many[:10])], False)
    assert table["rougeL_precision"].to_pylist() == [0.0, 0.75]


def test_stem_cache_is_bounded() -> None:
    assert rouge._stem.cache_info().maxsize is not None
