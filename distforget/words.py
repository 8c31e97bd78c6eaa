"""The words of a text in any language, and the facts that it states."""

from __future__ import annotations

from unicodedata import normalize

import regex

# Soft hyphens, direction marks, joiners: they change how a word looks and not which word it is.
_IGNORED = regex.compile(r"[\p{Default_Ignorable_Code_Point}--\u200b]+", regex.V1)
# UAX 29 parts Han, Hiragana, Thai, Lao, Khmer and Myanmar into characters, but leaves runs of
# Katakana and what underscores connect whole. A space parts these.
_PARTED = regex.compile(r"\p{Pc}|(?=\p{Word_Break=Katakana})")
_LETTER = r"[\p{Alphabetic}\p{N}--\p{M}]"
_LETTERS = regex.compile(r"[\p{L}\p{M}\p{N}]+")
WORD = regex.compile(
    rf"\b(?:(?!{_LETTER}).\B)*{_LETTER}.*?\b", regex.V1 | regex.WORD | regex.DOTALL
)
"""One word of a folded text, by Unicode's default rules (UAX 29)."""


def unicode_words(text: str) -> list[str]:
    """The words of one text, as ROUGE of Unicode words counts them, parted at apostrophes, too."""
    found: list[str] = _LETTERS.findall(" ".join(WORD.findall(folded(text))))
    return found


def folded(text: str) -> str:
    """The text as its words are looked for: without case, joiners, and ways to write a sign."""
    if text.isascii():
        return text.lower().replace("_", " ")
    seen = _IGNORED.sub("", normalize("NFD", text).casefold())
    parted: str = _PARTED.sub(" ", normalize("NFC", seen))
    return parted


def states(answer: str, fact: str) -> bool:
    """True if the answer holds the fact's words one after the other.

    Case, punctuation and ways to write one character are ignored. Words are whole: 1950 does not
    state 195.
    """
    return _spaced(fact) in _spaced(answer)


def _spaced(text: str) -> str:
    return f" {' '.join(unicode_words(text))} "
