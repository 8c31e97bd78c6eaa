"""Fictitious people with facts, as questions and answers, in any number.

Each row depends on the study's seed and on its own number alone. A target is one person and one
attribute; its neighbours are other people with facts of the same attribute; the others are facts of
people whom no target is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distforget.draws import generator_seed
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Reader, Source, Texts, Wanted, _people
from distforget.sources._base import Text, base_table
from distforget.sources._facts import fact, wrong_answers
from distforget.sources._shuffle import shuffle
from distforget.sources._wordings import ATTRIBUTES, KIND_ORDER, answer_forms, question_forms, say

WORDS_OF_TARGETS = _people.WORDS // 2
"""Number of invented words that only facts of targets use."""

MAX_TARGETS = WORDS_OF_TARGETS * len(ATTRIBUTES)
"""Also the number of people kept for targets, so that others stay equal when targets are added."""

MAX_NEIGHBOURS = 10
"""Neighbours of a target; as many people are kept for them."""

MAX_OTHERS = (_people.PEOPLE - MAX_TARGETS * (1 + MAX_NEIGHBOURS)) * len(ATTRIBUTES)

OTHERS_PER_READER = 50_000


class BiographiesConfig(Part):
    """Fictitious people, built in."""

    kind: Literal["biographies"] = "biographies"


def read(config: BiographiesConfig, wanted: Wanted, seed: int) -> Texts:
    """The targets with their neighbours, and readers of the others.

    A row's text depends on (seed, its number among the rows of its role), so it stays as it is when
    the study asks for more or fewer of any role.

    Raises:
        UsageError: more targets, neighbours or others are asked for than exist.
    """
    for field, asked, most in (
        ("targets", wanted.targets, MAX_TARGETS),
        ("neighbours", wanted.neighbours, MAX_NEIGHBOURS),
        ("others", wanted.others, MAX_OTHERS),
    ):
        if asked > most:
            raise UsageError(
                f"data.{field} is {asked}, but source 'biographies' has at most {most}; lower "
                f"data.{field}"
            )
    targets = [_target(target, seed) for target in range(wanted.targets)]
    neighbours = [
        _neighbour(target, place, seed)
        for target in range(wanted.targets)
        for place in range(wanted.neighbours)
    ]
    starts = range(0, wanted.others, OTHERS_PER_READER)
    return Texts(
        base_table(targets + neighbours),
        [
            Reader(low, partial(others, low, min(low + OTHERS_PER_READER, wanted.others), seed))
            for low in starts
        ],
        "biographies",
    )


def others(low: int, high: int, seed: int) -> Iterator[pa.Table]:
    """The others with numbers from `low` to below `high`, in one table."""
    draws = _draws(np.arange(low, high), seed, "other").tolist()
    yield base_table([_other(n, d, seed) for n, d in zip(range(low, high), draws, strict=True)])


def _target(target: int, seed: int) -> Text:
    attribute, fields = _target_fact(target, seed)
    return _text("target", attribute, "plain", 0, fields, target, seed)


@lru_cache(maxsize=1024)
def _target_fact(target: int, seed: int) -> tuple[str, dict[str, str]]:
    person = shuffle(_people.PEOPLE, seed, "people")(target)
    number, place = divmod(target, len(ATTRIBUTES))
    attribute = ATTRIBUTES[place]
    word = shuffle(_people.WORDS, seed, "words", attribute)(number)
    draw = _draws(np.asarray([target], np.int64), seed, "target")[0, 0]
    return attribute, fact(attribute, person, word, int(draw))


def _other(number: int, draws: list[int], seed: int) -> Text:
    """Question and answer of other row `number`; no person and no invented word of a target's."""
    pair = shuffle(MAX_OTHERS, seed, "others")(number)
    who, place = divmod(pair, len(ATTRIBUTES))
    attribute = ATTRIBUTES[place]
    person = shuffle(_people.PEOPLE, seed, "people")(MAX_TARGETS + who)
    word = shuffle(_people.WORDS, seed, "words", attribute)(_free_word(draws[0]))
    kind = KIND_ORDER[draws[2] % len(KIND_ORDER)]
    forms = len(question_forms(attribute)) * len(answer_forms(attribute)[kind])
    fields = fact(attribute, person, word, draws[1])
    form = draws[2] // len(KIND_ORDER) % forms
    return _text("other", attribute, kind, form, fields, None, seed)


def _neighbour(target: int, place: int, seed: int) -> Text:
    """The target's question about somebody else, with that person's answer."""
    attribute, _ = _target_fact(target, seed)
    number = target + MAX_TARGETS * place
    person = shuffle(_people.PEOPLE, seed, "people")(_people.PEOPLE - 1 - number)
    draws = _draws(np.asarray([number], np.int64), seed, "neighbour")[0].tolist()
    word = shuffle(_people.WORDS, seed, "words", attribute)(_free_word(draws[0]))
    fields = fact(attribute, person, word, draws[1])
    return _text("neighbour", attribute, "plain", 0, fields, target, seed)


def _free_word(draw: int) -> int:
    """Number of an invented word that no target uses."""
    return WORDS_OF_TARGETS + draw % (_people.WORDS - WORDS_OF_TARGETS)


def _text(
    role: str,
    attribute: str,
    kind: str,
    form: int,
    fields: dict[str, str],
    target: int | None,
    seed: int,
) -> Text:
    """A row that states `fields` in one of the forms."""
    question, answer = say(attribute, kind, form, fields)
    return Text(
        role,
        question,
        answer,
        facts=(fields["a"], fields["b"]),
        wrong_answers=wrong_answers(attribute, kind, form, fields, seed),
        target_index=None if target is None else target + 1,
        told={"attribute": attribute, **fields},
    )


def _draws(numbers_N: npt.NDArray[np.int64], seed: int, about: str) -> npt.NDArray[np.uint64]:
    """Three random 63-bit numbers for each number, [N, 3] (splitmix64, a counter-based draw)."""
    key = np.uint64(generator_seed(seed, "biographies", about))
    counters_N3 = numbers_N.astype(np.uint64)[:, None] * np.uint64(3) + np.arange(3, dtype="u8")
    z = key + (counters_N3 + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_N3: npt.NDArray[np.uint64] = (z ^ (z >> np.uint64(31))) >> np.uint64(1)
    return mixed_N3


SOURCE = Source(
    config=BiographiesConfig,
    version=2,
    source="fictitious people with facts, built in, any number; made for this package",
    track="text",
    similar="restated",
    read_texts=read,
    gives=frozenset({"what each text is made of"}),
    default=True,
    licence="people in `samples` are made up by distforget",
)
