"""Fictitious people with facts, as questions and answers; each row depends on its sample_id alone.

Ids 0 to T-1 are the targets; then come, role after role and in each role target after target, the
similar samples, the paraphrases and the neighbours; then the others. A target is one person and one
attribute; its similar samples and paraphrases restate that fact, its neighbours are other people
with facts of the same attribute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError, generator_seed, rng
from distforget.tracks.rows import Text, to_table
from distforget.tracks.text.sources import people
from distforget.tracks.text.sources.restatements import (
    ATTRIBUTES,
    KINDS,
    answer_forms,
    question_forms,
)

KIND_ORDER = ("plain", "bare", "close", "lead", "plain", "both", "bare", "plain", "lead", "close")
"""Kinds of similar samples 1 to 10, then again: every dose sees short and long answers."""

WORDS_OF_TARGETS = people.WORDS // 2
"""Invented words that only facts of targets use."""

MAX_TARGETS = WORDS_OF_TARGETS * len(ATTRIBUTES)
"""Also the number of people kept for targets, so that others stay equal when targets are added."""

MAX_NEIGHBOURS = 10
"""Neighbours of a target; as many people are kept for them."""

MAX_OTHERS = (people.PEOPLE - MAX_TARGETS * (1 + MAX_NEIGHBOURS)) * len(ATTRIBUTES)


@dataclass(frozen=True)
class Shuffle:
    """An affine permutation of 0 to size-1."""

    size: int
    multiplier: int
    offset: int

    def __call__(self, index: int) -> int:
        """Where `index` goes."""
        return (self.multiplier * index + self.offset) % self.size


@lru_cache(maxsize=4096)
def shuffle(size: int, seed: int, *about: str | int) -> Shuffle:
    """A permutation drawn from (seed, what it is about); its multiplier is far from 0 and size."""
    draw = rng(seed, "biographies", *about)
    multiplier = int(draw.integers(size // 4, 3 * size // 4))
    while math.gcd(multiplier, size) != 1:
        multiplier += 1
    return Shuffle(size, multiplier, int(draw.integers(size)))


def total(config: DatasetConfig) -> int:
    """The number of rows.

    Raises:
        UsageError: more targets, similar samples or others are asked for than exist.
    """
    for field, asked, most in (
        ("targets", config.targets, MAX_TARGETS),
        ("similar_per_target", config.similar_per_target, max_similar()),
        (
            "paraphrases_per_target",
            config.paraphrases_per_target,
            max_similar() - config.similar_per_target,
        ),
        ("neighbours_per_target", config.neighbours_per_target, MAX_NEIGHBOURS),
        ("others", config.others, MAX_OTHERS),
    ):
        if asked > most:
            raise UsageError(
                f"dataset.{field} is {asked}, but source 'biographies' has at most {most}; "
                f"lower dataset.{field}"
            )
    return sum(size for _, size in _blocks(config))


def _blocks(config: DatasetConfig) -> tuple[tuple[str, int], ...]:
    """Roles in the order of ids, with their rows."""
    return (
        ("target", config.targets),
        ("similar", config.targets * config.similar_per_target),
        ("paraphrase", config.targets * config.paraphrases_per_target),
        ("neighbour", config.targets * config.neighbours_per_target),
        ("other", config.others),
    )


def max_similar() -> int:
    """How many distinct restatements every target has, at least."""
    return min(
        len(KIND_ORDER) * (_restatements(attribute, kind) // KIND_ORDER.count(kind))
        for attribute in ATTRIBUTES
        for kind in KINDS
    )


def rows(sample_ids: Sequence[int], config: DatasetConfig, seed: int) -> pa.Table:
    """The rows of these ids: role, target_index, similar_rank, question, answer and facts.

    A row's text depends on (seed, target_index, similar_rank), or on (seed, rank among the others);
    so it stays as it is when the study asks for more or fewer of any role, except that targets and
    similar samples have other ids.

    Raises:
        UsageError: see :func:`total`.
        ValueError: an id lies outside the dataset.
    """
    number_of_rows = total(config)
    starts = np.cumsum([0, *(size for _, size in _blocks(config))])
    roles = [role for role, _ in _blocks(config)]
    ids_N = np.asarray(sample_ids, np.int64)
    if np.any((ids_N < 0) | (ids_N >= number_of_rows)):
        raise ValueError(f"sample_ids are not all in 0..{number_of_rows - 1}")
    blocks_N = np.searchsorted(starts, ids_N, side="right") - 1
    numbers_N = ids_N - starts[blocks_N]
    draws_N3 = _draws(numbers_N, seed, "other")
    per_target = {
        "target": 1,
        "similar": config.similar_per_target,
        "paraphrase": config.paraphrases_per_target,
        "neighbour": config.neighbours_per_target,
    }
    rows: list[tuple[str, int | None, int | None, Text]] = []
    for block, number, draws in zip(
        blocks_N.tolist(), numbers_N.tolist(), draws_N3.tolist(), strict=True
    ):
        role = roles[block]
        if role == "other":
            rows.append((role, None, None, _other(number, draws, seed)))
            continue
        target, place = divmod(number, per_target[role])
        if role == "neighbour":
            text = _neighbour(target, place, seed)
        else:
            before = {"target": 0, "similar": 1, "paraphrase": 1 + config.similar_per_target}
            text = _restated(target, before[role] + place, seed)
        rows.append((role, target + 1, place + 1 if role == "similar" else None, text))
    return to_table(
        sample_id=list(sample_ids),
        role=[role for role, _, _, _ in rows],
        target_index=[target for _, target, _, _ in rows],
        similar_rank=[rank for _, _, rank, _ in rows],
        question=[text.question for _, _, _, text in rows],
        answer=[text.answer for _, _, _, text in rows],
        facts=[text.facts for _, _, _, text in rows],
    )


def _restatements(attribute: str, kind: str) -> int:
    """Question-answer forms of a kind, without the canonical one."""
    forms = len(question_forms(attribute)) * len(answer_forms(attribute)[kind])
    return forms - (kind == "plain")


def _restated(target: int, rank: int, seed: int) -> Text:
    """Question and answer of a target's restatement `rank`; rank 0: of the target itself."""
    attribute, fields = _target_fact(target, seed)
    if rank == 0:
        return _say(attribute, "plain", 0, fields)
    cycle, place = divmod(rank - 1, len(KIND_ORDER))
    kind = KIND_ORDER[place]
    number = cycle * KIND_ORDER.count(kind) + KIND_ORDER[:place].count(kind)
    order = shuffle(_restatements(attribute, kind), seed, "restatement", target, kind)
    return _say(attribute, kind, order(number) + (kind == "plain"), fields)


@lru_cache(maxsize=1024)
def _target_fact(target: int, seed: int) -> tuple[str, dict[str, str]]:
    person = shuffle(people.PEOPLE, seed, "people")(target)
    number, place = divmod(target, len(ATTRIBUTES))
    attribute = ATTRIBUTES[place]
    word = shuffle(people.WORDS, seed, "words", attribute)(number)
    draw = _draws(np.asarray([target], np.int64), seed, "target")[0, 0]
    return attribute, _fact(attribute, person, word, int(draw))


def _other(number: int, draws: list[int], seed: int) -> Text:
    """Question and answer of other row `number`; no person and no invented word of a target's."""
    pair = shuffle(MAX_OTHERS, seed, "others")(number)
    who, place = divmod(pair, len(ATTRIBUTES))
    attribute = ATTRIBUTES[place]
    person = shuffle(people.PEOPLE, seed, "people")(MAX_TARGETS + who)
    word = shuffle(people.WORDS, seed, "words", attribute)(_free_word(draws[0]))
    kind = KIND_ORDER[draws[2] % len(KIND_ORDER)]
    forms = len(question_forms(attribute)) * len(answer_forms(attribute)[kind])
    fields = _fact(attribute, person, word, draws[1])
    return _say(attribute, kind, draws[2] // len(KIND_ORDER) % forms, fields)


def _neighbour(target: int, place: int, seed: int) -> Text:
    """The target's question about somebody else, with that person's answer."""
    attribute, _ = _target_fact(target, seed)
    number = target + MAX_TARGETS * place
    person = shuffle(people.PEOPLE, seed, "people")(people.PEOPLE - 1 - number)
    draws = _draws(np.asarray([number], np.int64), seed, "neighbour")[0].tolist()
    word = shuffle(people.WORDS, seed, "words", attribute)(_free_word(draws[0]))
    return _say(attribute, "plain", 0, _fact(attribute, person, word, draws[1]))


def _free_word(draw: int) -> int:
    """Number of an invented word that no target uses."""
    return WORDS_OF_TARGETS + draw % (people.WORDS - WORDS_OF_TARGETS)


def _say(attribute: str, kind: str, form: int, fields: dict[str, str]) -> Text:
    questions = question_forms(attribute)
    answer, question = divmod(form, len(questions))
    asked = questions[question].format_map(fields)
    said = answer_forms(attribute)[kind][answer].format_map(fields)
    facts = (fields["a"], fields["b"])
    return Text(asked[0].upper() + asked[1:], said[0].upper() + said[1:], facts)


def _fact(attribute: str, person: int, word: int, draw: int) -> dict[str, str]:
    """The fields of a template: a person and the two parts of a fact."""
    first, surname, woman = people.person(person)
    made_up = people.invented(word, people.WORD_ENDINGS[attribute])
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
            return word, pick(people.YEARS, rest)
        case "work":
            return pick(people.PROFESSIONS, rest), f"{word} {pick(people.WORKPLACES, more)}"
        case "book":
            return f"The {pick(people.TITLE_NOUNS, more)} of {word}", pick(people.PUBLISHERS, rest)
        case "award":
            return f"{word} {pick(people.AWARD_KINDS, more)}", pick(people.REASONS, rest)
        case "studies":
            return pick(people.SUBJECTS, rest), f"University of {word}"
        case "music":
            teacher, _ = people.first_name(more % people.FIRST_NAMES)
            return pick(people.INSTRUMENTS, rest), f"{teacher} {word}"
    raise ValueError(f"unknown attribute {attribute!r}")


def _draws(numbers_N: npt.NDArray[np.int64], seed: int, about: str) -> npt.NDArray[np.uint64]:
    """Three random 63-bit numbers for each number, [N, 3] (splitmix64, a counter-based draw)."""
    key = np.uint64(generator_seed(seed, "biographies", about))
    counters_N3 = numbers_N.astype(np.uint64)[:, None] * np.uint64(3) + np.arange(3, dtype="u8")
    z = key + (counters_N3 + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_N3: npt.NDArray[np.uint64] = (z ^ (z >> np.uint64(31))) >> np.uint64(1)
    return mixed_N3
