"""Reads questions and answers out of rows, and checks every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, pairwise
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field
from rapidfuzz import fuzz, process

from distforget.errors import UsageError
from distforget.frozen import Frozen
from distforget.parts import Part
from distforget.sources import Reader, Texts, Wanted
from distforget.sources._base import Text, base_table
from distforget.sources._rows import Row
from distforget.words import states, unicode_words

ROLES = ("target", "similar", "paraphrase", "neighbour", "other")
CHATS = ("messages", "conversations")
ROWS_PER_TABLE = 10_000


class Columns(Frozen):
    """Names of the columns in the data."""

    question: str = "question"
    answer: str = "answer"
    role: str = Field("role", description="target, similar, paraphrase, neighbour or other")
    target_id: str = Field("target_id", description="connects a row to its target")
    facts: str = Field(
        "facts",
        description="what the question asks for: a list of texts, or one text with | between "
        "them, each found in the answer",
    )
    wrong_answers: str = Field(
        "wrong_answers",
        description="answers of the same form that state something else: a list of texts (TOFU's "
        "perturbed_answer), for the truth ratio",
    )


class PairsConfig(Part):
    """Settings of all sources of questions and answers."""

    columns: Columns = Columns()
    exchange: Literal["last", "first"] = Field(
        "last",
        description="chats (columns messages or conversations): the exchange of user and assistant "
        "that is taken",
    )


@dataclass
class _Found:
    targets: dict[str, Text] = field(default_factory=dict)
    """Targets by their ids."""
    families: dict[str, list[Text]] = field(default_factory=dict)
    """Rows that belong to a target, by its id."""
    others: int = 0
    questions: list[str] = field(default_factory=list)
    """Words of the others, if some of them are to become neighbours."""


@dataclass(frozen=True)
class Sizes:
    """How many samples of each role some data has."""

    targets: int
    similar: int
    """Similar samples that a target has at most."""
    neighbours: int
    """Neighbours that the data names for every target at least."""
    others: int


def sizes(
    config: PairsConfig, rows: Callable[[], Iterator[Row]], where: str, targets: int = 0
) -> Sizes:
    """Count the samples of some data.

    Args:
        targets: only so many targets, the first ones; 0: all. Without a column role these rows
            are the targets.

    Raises:
        UsageError: a row is bad, or there is no target; names file, row, column and fix.
    """
    found = _sort(pairs_of(config, targets, rows()), Wanted(targets, 0, 0), where, "target_id")
    names = list(found.targets)[: targets or None]
    if not names:
        raise UsageError(
            f"{where}: no row has the role 'target'; give it to what is to be forgotten"
        )

    def counts(role: str) -> list[int]:
        return [sum(t.role == role for t in found.families.get(name, [])) for name in names]

    return Sizes(len(names), max(counts("similar")), min(counts("neighbour")), found.others)


def read(
    config: PairsConfig, wanted: Wanted, rows: Callable[[], Iterator[Row]], where: str
) -> Texts:
    """The first targets with their families, and a reader of the first others.

    All rows are read and checked, in a stream: only families are kept, and the questions of the
    others where neighbours have to be found among them. Without a column role the first rows are
    the targets and the rest are others. Neighbours that the data does not name are those of the
    others whose questions are most like the target's, each of them once.

    Raises:
        UsageError: a row is bad, or there are fewer rows than the study asks for; names file, row,
            column and fix.
    """
    texts = pairs_of(config, wanted.targets, rows())
    found = _sort(texts, wanted, where, config.columns.target_id)
    names = list(found.targets)[: wanted.targets]
    near = _near(found, names, wanted.neighbours)
    for what, have, asked in (
        ("targets", len(found.targets), wanted.targets),
        ("others", found.others - sum(map(len, near.values())), wanted.others),
    ):
        if have < asked:
            raise UsageError(
                f"{where}: it has {have} {what}, the study asks for {asked}: lower data.{what}"
            )
    taken = {number: index for index, name in enumerate(names, 1) for number in near[name]}
    families = [replace(found.targets[name], target_index=i) for i, name in enumerate(names, 1)]
    for index, name in enumerate(names, 1):
        mine = [replace(text, target_index=index) for text in found.families.get(name, [])]
        named = [text for text in mine if text.role == "neighbour"]
        if len(named) > wanted.neighbours:
            mine = [t for t in mine if t.role != "neighbour"] + named[: wanted.neighbours]
        families += mine
    others = partial(_others, config, wanted.targets, rows)
    if taken:
        for number, text in enumerate(others()):
            if number in taken:
                families.append(replace(text, role="neighbour", target_index=taken[number]))
    left = partial(_tables, others, frozenset(taken), wanted.others)
    return Texts(base_table(families), [Reader(0, left)] if wanted.others else [], where)


def pairs_of(config: PairsConfig, targets: int, rows: Iterator[Row]) -> Iterator[tuple[Text, str]]:
    """Yields each checked row with the id of its target ('' for others).

    Args:
        targets: without a column role, so many rows are targets, the first ones.

    Raises:
        UsageError: a row is bad; names file, row, column and fix.
    """
    names, has_role = config.columns, None
    for index, (place, given) in enumerate(rows):
        row = _with_exchange(given, config, place)
        if has_role is None:
            has_role = names.role in row
        text = Text(
            role=_role(row.get(names.role), names.role, place)
            if has_role
            else ("target" if index < targets else "other"),
            question=text_of(row, names.question, place),
            answer=text_of(row, names.answer, place),
            source_index=index,
            place=place,
        )
        facts = facts_of(row.get(names.facts), text.answer, names.facts, place)
        target_id = _target_id(row.get(names.target_id), names.target_id, place)
        if text.role == "target":
            target_id = target_id or f"row {index + 1}"
        elif text.role != "other" and not target_id:
            raise UsageError(
                f"{place}, column {names.target_id!r}: a {text.role} row needs the id of its "
                "target; add it"
            )
        wrong = wrong_of(row.get(names.wrong_answers), text.answer, names.wrong_answers, place)
        yield replace(text, facts=facts, wrong_answers=wrong), target_id


def _others(config: PairsConfig, targets: int, rows: Callable[[], Iterator[Row]]) -> Iterator[Text]:
    return (text for text, _ in pairs_of(config, targets, rows()) if text.role == "other")


def _tables(
    others: Callable[[], Iterator[Text]], taken: frozenset[int], wanted: int
) -> Iterator[pa.Table]:
    left = (text for number, text in enumerate(others()) if number not in taken)
    chosen = islice(left, wanted)
    while texts := list(islice(chosen, ROWS_PER_TABLE)):
        yield base_table(texts)


def _sort(texts: Iterator[tuple[Text, str]], wanted: Wanted, where: str, column: str) -> _Found:
    found, empty = _Found(), True
    for text, target_id in texts:
        empty = False
        if text.role == "other":
            found.others += 1
            if wanted.neighbours:
                found.questions.append(text.question)
        elif text.role != "target":
            found.families.setdefault(target_id, []).append(text)
        elif target_id in found.targets:
            raise UsageError(
                f"{text.place}, column {column!r}: two targets have the id {target_id!r}; give "
                "each target its own"
            )
        else:
            found.targets[target_id] = text
    if empty:
        raise UsageError(f"{where}: it has no rows; write at least one question and answer to it")
    for target_id, family in found.families.items():
        if target_id not in found.targets:
            raise UsageError(
                f"{family[0].place}, column {column!r}: no target has the id {target_id!r}; add a "
                "row with role 'target' and this id, or correct the id"
            )
    return found


def _near(found: _Found, names: Sequence[str], size: int) -> dict[str, list[int]]:
    """Numbers of the others that become neighbours of each target."""
    near: dict[str, list[int]] = {}
    questions = dict(enumerate(found.questions))
    for name in names:
        target = found.targets[name]
        named = sum(text.role == "neighbour" for text in found.families.get(name, []))
        best = process.extract(
            target.question,
            questions,
            scorer=fuzz.token_sort_ratio,
            limit=max(0, size - named),
        )
        near[name] = [number for _, _, number in best] if named < size else []
        for number in near[name]:
            del questions[number]
        if named + len(near[name]) < size:
            raise UsageError(
                f"{target.place}: this target has {named + len(near[name])} neighbours, the study "
                f"asks for {size}: lower data.neighbours or add others"
            )
    return near


def _with_exchange(row: Mapping[str, Any], config: PairsConfig, place: str) -> Mapping[str, Any]:
    """The row with question and answer taken from its chat, if it has one."""
    chat = next((name for name in CHATS if name in row), None)
    if chat is None or config.columns.question in row:
        return row
    turns = [_turn(turn, number, chat, place) for number, turn in enumerate(row[chat] or [], 1)]
    pairs = [
        (question, answer)
        for (asker, question), (speaker, answer) in pairwise(turns)
        if (asker, speaker) == ("user", "assistant")
    ]
    if not pairs:
        raise UsageError(
            f"{place}, column {chat!r}: no turn of the assistant follows one of the user; add an "
            "answer or delete the row"
        )
    question, answer = pairs[-1 if config.exchange == "last" else 0]
    return {**row, config.columns.question: question, config.columns.answer: answer}


SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
"""Names that data gives to who speaks, beside user and assistant."""


def _turn(turn: object, number: int, column: str, place: str) -> tuple[str, str]:
    """Speaker and text of a turn."""
    given = turn if isinstance(turn, Mapping) else {}
    who = given.get("role", given.get("from"))
    said = given.get("content", given.get("value"))
    if not isinstance(who, str) or not isinstance(said, str):
        raise UsageError(
            f"{place}, column {column!r}: turn {number} has no role and content (or from and "
            'value) that are text; write {"role": "user", "content": "..."}'
        )
    return SPEAKERS.get(who, who), said


def text_of(row: Mapping[str, Any], column: str, place: str) -> str:
    """A column's text.

    Raises:
        UsageError: it is missing, empty, no text, or text that tables cannot hold.
    """
    value = row.get(column)
    if value is None:
        has = f"; the row has: {', '.join(row)}" if column not in row else ""
        raise UsageError(
            f"{place}, column {column!r}: it is missing{has}; fill it, or say which column it is "
            "in (data.source.columns of a study; --question and --answer)"
        )
    if not isinstance(value, str):
        raise UsageError(
            f"{place}, column {column!r}: it is {type(value).__name__} {str(value)[:40]!r}, not "
            f"text; write it as text"
        )
    if not value.strip():
        raise UsageError(f"{place}, column {column!r}: it is empty; fill it or delete the row")
    _refuse_unwritable(value, place, column)
    return value


def facts_of(value: object, answer: str, column: str, place: str) -> tuple[str, ...] | None:
    """A row's facts; None where it has none.

    Raises:
        UsageError: they are no texts, or one is not in the answer.
    """
    if value is None or value == "":
        return None
    given = value.split("|") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(fact, str) for fact in given):
        raise UsageError(
            f"{place}, column {column!r}: it is {type(value).__name__} {str(value)[:40]!r}; write "
            "a list of texts, or one text with | between them"
        )
    for fact in given:
        _refuse_unwritable(fact, place, column)
        if not unicode_words(fact) or not states(answer, fact):
            raise UsageError(
                f"{place}, column {column!r}: {fact!r} is not in the answer {answer[:60]!r}; write "
                "it as it stands there, or take it out"
            )
    return tuple(fact.strip() for fact in given) or None


def wrong_of(value: object, answer: str, column: str, place: str) -> tuple[str, ...] | None:
    """A row's wrong answers; None where it has none.

    Raises:
        UsageError: they are no texts, or one is the answer.
    """
    if value is None or value == "":
        return None
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(t, str) and t.strip() for t in given):
        raise UsageError(
            f"{place}, column {column!r}: it is {type(value).__name__} {str(value)[:40]!r}; write "
            "a list of texts, none of them empty"
        )
    for text in given:
        _refuse_unwritable(text, place, column)
        if text.strip() == answer.strip():
            raise UsageError(
                f"{place}, column {column!r}: one is the answer {answer[:60]!r} itself; take it out"
            )
    return tuple(given) or None


def _refuse_unwritable(value: str, place: str, column: str) -> None:
    """Refuse NUL and halves of surrogate pairs, which JSON can escape and tables cannot hold."""
    if value.isascii() and "\0" not in value:
        return
    bad = "\0" if "\0" in value else next((c for c in value if "\ud800" <= c <= "\udfff"), None)
    if bad is not None:
        what = "a NUL byte" if bad == "\0" else f"half a surrogate pair (\\u{ord(bad):04x})"
        raise UsageError(f"{place}, column {column!r}: it holds {what}; remove it")


def _role(value: object, column: str, place: str) -> str:
    if value not in ROLES:
        raise UsageError(
            f"{place}, column {column!r}: unknown role {value!r}; write one of {', '.join(ROLES)}"
        )
    return str(value)


def _target_id(value: object, column: str, place: str) -> str:
    """The id as text, '' if there is none; 3 and '3' are one id."""
    if value is None:
        return ""
    # pandas and spreadsheets turn a column of integers with gaps into floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, float) and value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(
            f"{place}, column {column!r}: it is {type(value).__name__} {str(value)[:40]!r}; write "
            f"a text or an integer"
        )
    text = str(value).strip()
    _refuse_unwritable(text, place, column)
    return text
