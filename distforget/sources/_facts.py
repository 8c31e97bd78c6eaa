"""Facts of made-up people, and answers that state wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice

from distforget.draws import generator_seed
from distforget.sources import _people
from distforget.sources._wordings import say

WRONG = 3
"""Wrong answers of each sample."""


def wrong_answers(
    attribute: str, kind: str, form: int, fields: Mapping[str, str], seed: int
) -> tuple[str, ...]:
    """The sample's answer, word for word, with other facts of the same kind.

    They depend on the seed, the person and the attribute alone: a restatement has the same ones in
    its own words.
    """
    found = (
        say(attribute, kind, form, {**fields, **parts})[1]
        for parts in _others(attribute, fields, seed)
    )
    return tuple(islice(found, WRONG))


def _others(attribute: str, fields: Mapping[str, str], seed: int) -> Iterator[dict[str, str]]:
    """Both parts of other facts, neither of which is the person's or an earlier one's."""
    seen = {fields["a"], fields["b"]}
    for number in count():
        draw = generator_seed(seed, "wrong", attribute, fields["name"], number)
        word = _people.invented(draw % _people.WORDS, _people.WORD_ENDINGS[attribute])
        parts = _parts(attribute, word, draw // _people.WORDS)
        if not seen & {*parts}:
            seen |= {*parts}
            yield dict(zip("ab", parts, strict=True))


def fact(attribute: str, person: int, word: int, draw: int) -> dict[str, str]:
    """The fields of a template: a person and the two parts of a fact."""
    first, surname, woman = _people.person(person)
    made_up = _people.invented(word, _people.WORD_ENDINGS[attribute])
    a, b = _parts(attribute, made_up, draw)
    return {
        "name": f"{first} {surname}",
        "sur": surname,
        "s": "she" if woman else "he",
        "p": "her" if woman else "his",
        "a": a,
        "b": b,
    }


def _parts(attribute: str, word: str, draw: int) -> tuple[str, str]:
    more, rest = draw % 1024, draw // 1024

    def pick(words: tuple[str, ...], number: int) -> str:
        return words[number % len(words)]

    match attribute:
        case "birth":
            return word, pick(_people.YEARS, rest)
        case "work":
            return pick(_people.PROFESSIONS, rest), f"{word} {pick(_people.WORKPLACES, more)}"
        case "book":
            title = f"The {pick(_people.TITLE_NOUNS, more)} of {word}"
            return title, pick(_people.PUBLISHERS, rest)
        case "award":
            return f"{word} {pick(_people.AWARD_KINDS, more)}", pick(_people.REASONS, rest)
        case "studies":
            return pick(_people.SUBJECTS, rest), f"University of {word}"
        case "music":
            teacher, _ = _people.first_name(more % _people.FIRST_NAMES)
            return pick(_people.INSTRUMENTS, rest), f"{teacher} {word}"
    raise ValueError(f"unknown attribute {attribute!r}")
