"""Turns what a writer returned into similar samples, and says why a text was dropped."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import regex
from rapidfuzz import fuzz

from distforget.similarity._meaning import Meaning
from distforget.words import states, unicode_words

LEAD_IN = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|yes|here(?:'s| is| are)|"
    r"(?:a |the |one |my )?(?:rephrased|reworded|revised|paraphrased|possible))\b[^\n:]{0,150}|"
    r"[^\n:]{0,100}\b(?:rephrase|reword|paraphrase|correct|rewrit)[^\n:]{0,60}|"
    r"a|q|answer|question|sentence|output)\s*:\s*",
    re.IGNORECASE,
)
"""What chat models say before the text itself, up to a colon."""
ABOUT_THE_TASK = re.compile(
    r"\b(?:(?:re|para)phras\w*|reword\w*|(?:original|corrected|revised) (?:sentence|text|version)|"
    r"(?:this|the) sentence)\b",
    re.IGNORECASE,
)
"""What is said of a text, not in it."""
REFUSALS = (
    "i cannot", "i can't", "i can not", "i'm sorry", "i am sorry", "i apologize", "i apologise",
    "sorry, but", "as an ai", "i'm unable", "i am unable", "i'm not able", "i won't", "i will not",
    "could you ask", "could you please rephrase", "please provide", "less offensive",
)  # fmt: skip
"""What refusals begin with or say; compared in lower case."""
SEVERAL = ("alternative", "another way", "other ways", "option 1", "or:", "version 1", "either of")
"""Words that announce several restatements."""
ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+\S", re.MULTILINE)
QUOTES = "\"'“”‘’«»„`*"
ASKING = ("?", "？", "؟", "՞", "⸮", ";")
"""What questions end with: in Latin and Cyrillic, Chinese, Arabic, ..., Greek."""
NEGATIONS = frozenset(
    {"not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot"}
)
GERMAN = frozenset(
    {"der", "die", "das", "den", "dem", "ein", "eine", "und", "ist", "war", "wird", "nicht", "auf",
     "mit", "wer", "wie", "wann", "welche", "welcher", "hat"}
)  # fmt: skip
"""Common words of a language that writes all nouns with capital letters."""
LONGEST = 4
"""A restatement has at most so many times the characters of the target, and 200."""


@dataclass(frozen=True)
class Target:
    """What is restated."""

    question: str
    answer: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """A restated question and answer; `reason` says why it is not used, '' if it is."""

    number: int
    question: str
    answer: str
    reason: str


@dataclass(frozen=True)
class Completion:
    """What a writer returned for one text: None if it failed; cut off if it did not end."""

    text: str | None
    cut_off: bool = False


def standardise(
    target: Target,
    pairs: Sequence[tuple[int, Completion, Completion]],
    near: float,
    meaning: Meaning | None = None,
) -> list[Rewrite]:
    """Clean restatements of a target and drop those that are not usable.

    Args:
        pairs: number, restated question and restated answer.
        near: similarity of two restatements, 0 to 1, from which on the later one is dropped.
        meaning: judges whether a text means what its original means; None: nothing does.

    Source: paper section 3.2, which drops several restatements in one, refusals, lead-ins,
    duplicates and copies; what a restatement must keep is checked besides.
    """
    found: list[Rewrite] = []
    for number, question, answer in pairs:
        texts, reason = [], ""
        for part, given, original in (
            ("question", question, target.question), ("answer", answer, target.answer),
        ):  # fmt: skip
            text, why = clean(given, original)
            texts.append(text)
            reason = reason or (why and f"{part}: {why}")
        reason = reason or changed(target, *texts)
        found.append(Rewrite(number, texts[0], texts[1], reason))
    if meaning:
        found = _of_same_meaning(target, found, meaning)
    return _without_repeated(target, found, near)


def _of_same_meaning(target: Target, found: Sequence[Rewrite], meaning: Meaning) -> list[Rewrite]:
    """These rewrites with a reason for those that mean something else."""
    left = [rewrite for rewrite in found if not rewrite.reason]
    judged = meaning(
        [(target.question, rewrite.question) for rewrite in left]
        + [(target.answer, rewrite.answer) for rewrite in left]
    )
    of_questions, of_answers = judged[: len(left)], judged[len(left) :]
    reasons = {
        rewrite.number: (question and f"question: {question}") or (answer and f"answer: {answer}")
        for rewrite, question, answer in zip(left, of_questions, of_answers, strict=True)
    }
    return [replace(r, reason=r.reason or reasons[r.number]) for r in found]


def _without_repeated(target: Target, found: Sequence[Rewrite], near: float) -> list[Rewrite]:
    """These rewrites with a reason for those that repeat the target or an earlier one."""
    kept: list[str] = []
    checked = []
    for rewrite in found:
        whole = f"{rewrite.question} {rewrite.answer}"
        reason = rewrite.reason or repeated(target, whole, kept, near)
        if not reason:
            kept.append(_folded(whole))
        checked.append(replace(rewrite, reason=reason))
    return checked


def clean(given: Completion, original: str) -> tuple[str, str]:
    """A completion without lead-ins and quotation marks, and why it is not usable ('' if it is)."""
    if given.text is None:
        return "", "no completion"
    text = "".join(c for c in given.text if c in "\n\t" or unicodedata.category(c) != "Cc").strip()
    text = LEAD_IN.sub("", text).strip()
    if len(text) > LONGEST * len(original) + 200:
        return text[: len(original)], "too long"
    if given.cut_off:
        return text, "cut off"
    low, had = text.lower(), original.lower()
    if len(ITEM.findall(text)) > 1 or any(word in low and word not in had for word in SEVERAL):
        return text, "several restatements"
    if any(words in low[:120] and words not in had for words in REFUSALS):
        return text, "refusal"
    if ABOUT_THE_TASK.search(text) and not ABOUT_THE_TASK.search(original):
        return text, "talks about the task"
    text = " ".join(text.split())
    if len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES:
        text = text.strip(QUOTES).strip()
    if not any(c.isalnum() for c in text):
        return text, "empty"
    if _script(text) != _script(original):
        return text, "another language"
    if original.rstrip(QUOTES + " ").endswith(ASKING) and not text.endswith(ASKING):
        return text, "no question any more"
    return text, ""


def changed(target: Target, question: str, answer: str) -> str:
    """What of the target's fact a restatement lacks, or adds to it; '' if it keeps to it."""
    if any(not states(answer, fact) for fact in target.facts):
        return "answer: a fact is lost"
    both = f"{target.question} {target.answer}"
    nouns = _capitalises_nouns(both)
    known = {word.casefold() for word in unicode_words(both)}
    for part, new, old in (
        ("question", question, target.question), ("answer", answer, target.answer),
    ):  # fmt: skip
        if not _numbers(old) <= _numbers(new):
            return f"{part}: a number is lost"
        if not _numbers(new) <= _numbers(both):
            return f"{part}: a number is added"
        if not nouns and not _names(old) <= {word.casefold() for word in unicode_words(new)}:
            return f"{part}: a name is lost"
        if not nouns and not _names(new) <= known:
            return f"{part}: a name is added"
        if _negated(old) != _negated(new):
            return f"{part}: a negation is lost or added"
    return ""


def repeated(target: Target, text: str, kept: Sequence[str], near: float) -> str:
    """Whether it says what the target or an earlier restatement says, word for word or nearly."""
    both = _folded(text)
    if both == _folded(f"{target.question} {target.answer}"):
        return "copy of the target"
    if both in kept:
        return "duplicate"
    if any(fuzz.token_sort_ratio(both, other) >= 100 * near for other in kept):
        return "near duplicate"
    return ""


def _folded(text: str) -> str:
    """Words without case and punctuation."""
    return " ".join(word.casefold() for word in unicode_words(text))


def _numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def _names(text: str) -> set[str]:
    """Capitalised words inside sentences, in lower case."""
    inside = regex.findall(r"(?<=[^\s.!?:]\s+)\p{Lu}[\p{L}\p{M}]+", text)
    return {word.casefold() for word in inside}


def _capitalises_nouns(text: str) -> bool:
    """Whether it is German, in which a capital letter makes no name."""
    return len(GERMAN & set(unicode_words(text))) >= 2


def _negated(text: str) -> bool:
    words = unicode_words(text.casefold().replace("’", "'"))
    return any(w in NEGATIONS for w in words) or "n't" in text.casefold().replace("’", "'")


def _script(text: str) -> str:
    """The writing system of most letters, by the first word of their Unicode names."""
    names = Counter(unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())
    return names.most_common(1)[0][0] if names else ""
