"""ROUGE on the words of every language: what it must be where no package gives the numbers."""

from __future__ import annotations

from fractions import Fraction
from unicodedata import category, normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget import rouge
from distforget.rouge import need_unicode_words, rouge_scores
from distforget.words import folded

SPACED = {
    "Latin": "Jürgen wohnt seit Ostern in München und spricht Türkçe",
    "Vietnamese": "ông sinh ra ở thành phố Huế năm ấy",
    "Cyrillic": "Ёжик родился зимой в городе Йошкар Ола",
    "Greek": "Ο Οδυσσέας γεννήθηκε στην Αθήνα ένας άνθρωπος",
    "Arabic": "وُلد الشاعر في مدينة دمشق القديمة",
    "Hebrew": "הַמְּשׁוֹרֵר נולד בעיר ירושלים לפני שנים",
    "Devanagari": "उसका जन्म हिन्दी प्रदेश के लखनऊ में हुआ",
    "Bengali": "তাঁর জন্ম ঢাকা শহরে হয়েছিল শীতে",
    "Tamil": "அவர் மதுரை நகரில் பிறந்தார் கோடையில்",
    "Korean": "그는 서울에서 태어나 부산에 살았다",
    "Georgian": "ის დაიბადა თბილისში ზამთარში მთაზე",
    "Armenian": "Նա ծնվել է Երևան քաղաքում ձմռանը",
    "Ethiopic": "እሱ የተወለደው በአዲስ አበባ ከተማ ነው",
}
"""Sentences of words with spaces between them, none of them twice, by script."""

UNSPACED = {
    "Han": "他出生在青岛市的海边",
    "Japanese": "東京タワーにいます",
    "Thai": "กขคฆงจ",
    "Lao": "ກຂຄງຈ",
    "Khmer": "កខគឃង",
    "Myanmar": "ကခဂဃင",
}
"""Texts of letters that are words each, none of them twice, by script."""

SENTENCES = {**SPACED, **UNSPACED}
TOKENS = {
    **{script: text.split() for script, text in SPACED.items()},
    **{script: list(text) for script, text in UNSPACED.items()},
}
scripts = pytest.mark.parametrize("script", SENTENCES)


def score(prediction: str, reference: str, column: str = "rougeL_recall") -> float:
    table = rouge_scores([prediction], [reference], use_stemmer=True, unicode_words=True)
    return float(table[column][0].as_py())


def joined(script: str, tokens: list[str]) -> str:
    return (" " if script in SPACED else "").join(tokens)


def longest_common(a: list[str], b: list[str]) -> int:
    """The textbook's table, cell by cell."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a, 1):
        for j, right in enumerate(b, 1):
            same = left == right
            table[i][j] = table[i - 1][j - 1] + 1 if same else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@scripts
def test_a_perfect_answer_scores_1(script: str) -> None:
    text = SENTENCES[script]
    table = rouge_scores([text], [text], use_stemmer=True, unicode_words=True)
    assert table.to_pylist() == [dict.fromkeys(table.column_names, 1.0)]


@scripts
def test_each_word_left_out_costs_its_share(script: str) -> None:
    tokens = TOKENS[script]
    recalls = [score(joined(script, tokens[:n]), joined(script, tokens)) for n in range(8)]
    assert recalls == [pytest.approx(min(n / len(tokens), 1)) for n in range(8)]


@scripts
def test_texts_in_other_scripts_score_0(script: str) -> None:
    # Japanese is written with Han characters, too.
    others = [text for name, text in SENTENCES.items() if name not in (script, "Han", "Japanese")]
    assert {score(other, SENTENCES[script], "rouge1_fmeasure") for other in others} == {0.0}


@scripts
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_characters_are_one(script: str, form: str) -> None:
    text = SENTENCES[script]
    assert score(normalize(form, text), text) == 1
    assert score(text, normalize(form, text), "rouge2_fmeasure") == 1


@pytest.mark.parametrize("script", ["Latin", "Vietnamese", "Cyrillic", "Greek", "Armenian"])
def test_case_is_ignored(script: str) -> None:
    # The Armenian ligature and the Greek final sigma have no capital of their own.
    assert score(SENTENCES[script].upper(), SENTENCES[script]) == 1


@pytest.mark.parametrize("script", ["Greek", "Devanagari", "Thai", "Han", "Korean"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_two_texts_agree_with_the_textbook(script: str, data: st.DataObject) -> None:
    drawn = st.lists(st.sampled_from(TOKENS[script][:5]), max_size=12)
    a, b = data.draw(drawn), data.draw(drawn)
    texts = joined(script, a), joined(script, b)
    common = longest_common(a, b)
    assert score(*texts) == float(Fraction(common, max(len(b), 1)))
    assert score(*texts, "rougeL_precision") == float(Fraction(common, max(len(a), 1)))


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_recall_one_way_is_precision_the_other(a: str, b: str) -> None:
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert score(a, b, f"{kind}_recall") == score(b, a, f"{kind}_precision")


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["NFC", "NFD"]))
@settings(max_examples=150, deadline=None)
def test_no_score_depends_on_the_normal_form(a: str, b: str, form: str) -> None:
    assert score(normalize(form, a), b) == score(a, normalize(form, b)) == score(a, b)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_saying_more_never_lowers_recall(a: str, more: str, reference: str) -> None:
    assert score(f"{a}\n{more}", reference) >= score(a, reference)


@given(st.text(max_size=30) | st.text("aé_カガｶﾞー東ล\u0e35\u0301\u200d'. 1", max_size=12))
@settings(max_examples=300, deadline=None)
def test_no_letter_and_no_digit_is_lost(text: str) -> None:
    found = "".join(rouge._unicode_words([text])[:-1])
    assert _letters(found) == _letters(folded(text))


def _letters(text: str) -> str:
    # Sound marks of half width are called letters, too.
    return "".join(sign for sign in text if category(sign)[0] in "LN" and sign not in "ﾞﾟ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # The example of Unicode's annex 29, section 4.
        (
            "The quick (“brown”) fox can’t jump 32.3 feet, right?",
            ["the", "quick", "brown", "fox", "can’t", "jump", "32.3", "feet", "right"],
        ),
        ("Straße Σίσυφος ΣΊΣΥΦΟΣ", ["strasse", "σίσυφοσ", "σίσυφοσ"]),
        ("一九五0年に東京タワーで_ABC_を", [*"一九五0年に東京タワーで", "abc", "を"]),
        ("ｶﾞｰﾄﾞ ガガ", ["ｶﾞ", "ｰ", "ﾄﾞ", "ガ", "ガ"]),
        ("กำลัง", ["ก", "ำ", "ลั", "ง"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("שלום\u200f, צה״ל", ["שלום", "צה״ל"]),
        ("Mün\u00adchen می\u200cخواهم", ["münchen", "میخواهم"]),
        ("foo_bar —…!? 👍🏽 x²", ["foo", "bar", "x", "²"]),
        ("snake_case", ["snake", "case"]),
        ("¸0 Ⓐb ン゠ア", ["¸0", "ⓐb", "ン", "ア"]),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    assert rouge._unicode_words([text, ""]) == [*words, "A", "A"]


def test_a_letter_that_only_unicode_sees_decides() -> None:
    pair = ["Er wohnt in Manchen"], ["Er wohnt in München"]
    assert rouge_scores(*pair, False)["rougeL_recall"].to_pylist() == [0.6]  # er wohnt in m nchen
    assert rouge_scores(*pair, False, True)["rougeL_recall"].to_pylist() == [0.75]


def test_words_of_unicode_are_not_stemmed() -> None:
    assert score("running", "runs") == 0


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("Plain words, 1950.", False),
        ("Typographic “quotes” – and it’s… €5", False),
        ("München", True),
        ("Mu\u0308nchen", True),
        ("東京", True),
        ("٣", True),
    ],
)
def test_when_unicode_words_are_needed(text: str, needed: bool) -> None:
    assert need_unicode_words(["no", text, "no"]) is needed


def test_texts_in_blocks_do_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*SENTENCES.values(), "\u0301", "\u200d", "", "\ud800", "ー"]
    whole = rouge_scores(texts, texts[::-1], False, True)
    monkeypatch.setattr(rouge, "_TEXTS_PER_BLOCK", 1)
    assert rouge_scores(texts, texts[::-1], False, True) == whole
