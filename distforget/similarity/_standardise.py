"""Turns what a writer returned into similar samples, and says why a text was dropped."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import regex
from rapidfuzz import fuzz

from distforget.similarity._meaning import Meaning
from distforget.words import states, unicode_words

LEAD_IN = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|yes|here(?:'s| is| are)|"
    r"(?:a |the |one |my )?(?:rephrased|reworded|revised|paraphrased|possible))\b[^\n:]{0,150}|"
    r"[^\n:]{0,150}\b(?:rephrase|reword|paraphrase|correct|restat|revis|rewrit)[^\n:]{0,60}|"
    r"a|q|answer|question|sentence|output)\s*:\s*",
    re.IGNORECASE,
)
"""What chat models say before the text itself, up to a colon."""
LEAD_IN_OF_ANY_KIND = re.compile(r"^[^\n:.?!]{1,80}:\s+")
"""The same where the target has no colon."""
ABOUT_THE_TASK = re.compile(
    r"\b(?:(?:re|para)phras\w*|reword\w*|(?:this|the) sentence|(?:this|the) question|"
    r"(?:original|corrected|revised|rewritten|different) "
    r"(?:answer|meaning|question|sentence|text|version|wording))\b",
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


Part = Literal["question", "answer"]


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


@dataclass(frozen=True)
class _Judged:
    """A cleaned restatement of a question or an answer; `why` it is not usable, '' if it is."""

    text: str
    why: str


def standardise(
    target: Target,
    pairs: Sequence[tuple[int, Completion, Completion]],
    near: float,
    meaning: Meaning | None = None,
) -> list[Rewrite]:
    """Clean restatements of a target and drop those that are not usable.

    A question and an answer are judged apart. A usable question whose answer is not usable gets
    the first usable answer whose question is not.

    Args:
        pairs: number, restated question and restated answer.
        near: similarity of two restatements, 0 to 1, from which on the later one is dropped.
        meaning: judges whether a text means what its original means; None: nothing does.

    Source: paper section 3.2, which drops several restatements in one, refusals, lead-ins,
    duplicates and copies; what a restatement must keep is checked besides.
    """
    numbers = [number for number, _, _ in pairs]
    questions = _judged(target, "question", [question for _, question, _ in pairs], meaning)
    answers = _judged(target, "answer", [answer for _, _, answer in pairs], meaning)
    both = list(zip(questions, answers, strict=True))
    alone = [i for i, (question, answer) in enumerate(both) if answer.why and not question.why]
    free = [answer for question, answer in both if question.why and not answer.why]
    given = dict(zip(alone, free, strict=False))
    found = []
    for i, (question, own) in enumerate(both):
        answer = given.get(i, own)
        why = (question.why and f"question: {question.why}") or (
            answer.why and f"answer: {answer.why}"
        )
        found.append(Rewrite(numbers[i], question.text, answer.text, why))
    return _without_repeated(target, found, near)


def _judged(
    target: Target, part: Part, completions: Sequence[Completion], meaning: Meaning | None
) -> list[_Judged]:
    """Each completion cleaned, with the reason why it is not usable."""
    original: str = getattr(target, part)
    found = []
    for completion in completions:
        text, why = clean(completion, original)
        found.append(_Judged(text, why or changed(target, part, text)))
    if meaning:
        left = [i for i, judged in enumerate(found) if not judged.why]
        for i, why in zip(left, meaning([(original, found[i].text) for i in left]), strict=True):
            found[i] = replace(found[i], why=why)
    return found


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
    if not LEAD_IN.match(original):
        text = _without_lead_ins(text, LEAD_IN if ":" in original else LEAD_IN_OF_ANY_KIND)
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
    if text.count('"') == 1:  # the other one stood before what was cut off
        text = text.strip('"').strip()
    if not any(c.isalnum() for c in text):
        return text, "empty"
    if _script(text) != _script(original):
        return text, "another language"
    if original.rstrip(QUOTES + " ").endswith(ASKING) and not text.endswith(ASKING):
        return text, "no question any more"
    return text, ""


def _without_lead_ins(text: str, lead_in: re.Pattern[str]) -> str:
    """The text after all that is said before it."""
    while (shorter := lead_in.sub("", LEAD_IN.sub("", text)).strip()) != text:
        text = shorter
    return text


def changed(target: Target, part: Part, new: str) -> str:
    """What of the target's fact a restatement lacks, or adds to it; '' if it keeps to it."""
    if part == "answer" and any(not states(new, fact) for fact in target.facts):
        return "a fact is lost"
    old: str = getattr(target, part)
    both = f"{target.question} {target.answer}"
    if not _numbers(old) <= _numbers(new):
        return "a number is lost"
    if not _numbers(new) <= _numbers(both):
        return "a number is added"
    if not _capitalises_nouns(both):
        if not (_names(old) | _names(both) & _words(old)) <= _words(new):
            return "a name is lost"
        if not _names(new) <= _words(both):
            return "a name is added"
    return "a negation is lost or added" if _negated(old) != _negated(new) else ""


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


def _words(text: str) -> set[str]:
    return {word.casefold() for word in unicode_words(text)}


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
