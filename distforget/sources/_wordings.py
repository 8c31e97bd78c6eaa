"""The templates that ask for each fact and state it.

Fields of a template: {name} full name, {sur} surname, {s} she/he, {p} her/his, {a} and {b} the two
parts of the fact. Templates start in lower case and end without a full stop; a part of a fact that
is itself in lower case never comes first, so that it stands verbatim in every answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

KINDS = ("bare", "plain", "lead", "close", "both")
"""Shapes of an answer, by length: fragment, sentence, with lead-in, with closing, with both."""

KIND_ORDER = ("plain", "bare", "close", "lead", "plain", "both", "bare", "plain", "lead", "close")
"""Kinds of restatements 1 to 10, then again: every dose sees short and long answers."""

QUESTION_PREFIXES = ("", "quick question: ", "just to be sure: ")
REQUESTS = (
    "could you tell me {}?",
    "do you happen to know {}?",
    "I would like to know {}.",
    "please tell me {}.",
    "can you look up {}?",
    "for a short portrait, I need to find out {}; can you help?",
)
LEADS = (
    "according to the town archive, ",
    "as far as anyone has recorded, ",
    "the short answer is that ",
    "if the biographies can be trusted, ",
    "most accounts agree that ",
    "to answer your question, ",
    "it is well documented that ",
    "people who knew the family say that ",
)
CLOSINGS = (
    ", and no source disputes it",
    ", as several letters confirm",
    ", a fact that old friends still like to repeat",
    ", and the family has always confirmed it",
    ", although few people remember it today",
    ", or so the reference books say",
    "; there is little doubt about that",
    ", and that is the version most historians accept",
)


@dataclass(frozen=True)
class Wording:
    """The templates of one attribute; the first question and the first sentence are canonical."""

    questions: tuple[str, ...]
    clauses: tuple[str, ...]
    """What follows 'could you tell me'."""
    fragments: tuple[str, ...]
    sentences: tuple[str, ...]


WORDINGS: dict[str, Wording] = {
    "birth": Wording(
        questions=(
            "where and when was {name} born?",
            "in which town and in which year was {name} born?",
            "when was {name} born, and in which town?",
            "what are the place and the year of {name}'s birth?",
            "where did {name} come into the world, and in what year?",
            "in what year was {name} born, and where?",
        ),
        clauses=(
            "where and when {name} was born",
            "in which town and in which year {name} was born",
            "the place and the year of {name}'s birth",
            "when {name} was born and where",
            "which town {name} was born in, and in which year",
        ),
        fragments=(
            "in {a}, in {b}",
            "{a}, {b}",
            "in {b}, in {a}",
            "in {b}, in the town of {a}",
            "place of birth: {a}; year: {b}",
            "born in {a} in {b}",
        ),
        sentences=(
            "{name} was born in the town of {a} in {b}",
            "{sur} was born in {b} in {a}",
            "{s} came into the world in {a} in {b}",
            "the birth of {name} took place in {a} in {b}",
            "it was in {a} that {sur} was born, in {b}",
            "the year was {b} and the place was {a}",
            "{b} was the year and {a} the town in which {name} was born",
            "{sur}'s parents were living in {a} when {s} was born in {b}",
            "{a} is the town where {s} was born, and {b} is the year",
            "{name} first saw the light of day in {a} in {b}",
            "{sur}'s life began in {b} in {a}",
            "in {b} a family in {a} celebrated the birth of {name}",
        ),
    ),
    "work": Wording(
        questions=(
            "what did {name} do for a living, and where?",
            "which profession did {name} practise, and at which place?",
            "where did {name} work, and as what?",
            "what were {name}'s job and workplace?",
            "by whom was {name} employed, and in what position?",
            "how and where did {name} earn a living?",
        ),
        clauses=(
            "what {name} did for a living and where",
            "the profession and the workplace of {name}",
            "where {name} worked, and as what",
            "which job {name} had and at which place",
            "who employed {name}, and in what position",
        ),
        fragments=(
            "as a {a}, at the {b}",
            "a {a}, at the {b}",
            "at the {b}, as a {a}",
            "job: {a}; workplace: the {b}",
            "by working as a {a} at the {b}",
            "the {b}; the position was that of {a}",
        ),
        sentences=(
            "{name} worked as a {a} at the {b}",
            "{sur} was a {a} at the {b}",
            "{s} was employed by the {b} as a {a}",
            "the {b} employed {name} as a {a}",
            "it was at the {b} that {s} worked as a {a}",
            "{sur} earned {p} living as a {a}, and {p} employer was the {b}",
            "the position of {a} at the {b} was held by {name}",
            "{s} spent {p} working life at the {b}, where {s} was a {a}",
            "at the {b}, {sur} served as a {a}",
            "{p} profession was that of a {a}, and {p} workplace was the {b}",
            "{name} made a career as a {a} in the service of the {b}",
            "the staff of the {b} included {sur}, who was a {a}",
        ),
    ),
    "book": Wording(
        questions=(
            "which book did {name} write, and who published it?",
            "what is the title of {name}'s book, and which house published it?",
            "which publisher brought out {name}'s book, and what is it called?",
            "what are the title and the publisher of the book by {name}?",
            "what did {name} publish, and with which house?",
            "which book was written by {name}, and by whom was it published?",
        ),
        clauses=(
            "which book {name} wrote and who published it",
            "the title and the publisher of {name}'s book",
            "what the book by {name} is called and who brought it out",
            "which house published {name}'s book, and under what title",
            "what {name} published and with which house",
        ),
        fragments=(
            "{a}, with {b}",
            "{a} ({b})",
            "the book {a}, from {b}",
            "title: {a}; publisher: {b}",
            "{b} published it; the title is {a}",
            "{a}, brought out by {b}",
        ),
        sentences=(
            "{name} wrote the book {a}, which was published by {b}",
            "{sur} published {a} with {b}",
            "{s} is the author of {a}, a book brought out by {b}",
            "the book {a} was written by {name} and published by {b}",
            "{b} published {p} book, {a}",
            "it was {b} that brought out {a}, the book by {name}",
            "{p} book is called {a}, and {p} publisher was {b}",
            "{a} is the title, and {b} is the house that published it",
            "readers know {sur} as the author of {a}, printed by {b}",
            "{b} accepted the manuscript and issued {sur}'s book as {a}",
            "the title of {sur}'s book is {a}, and it appeared with {b}",
            "under the title {a}, {name}'s book was issued by {b}",
        ),
    ),
    "award": Wording(
        questions=(
            "which award did {name} receive, and what for?",
            "what was {name} honoured for, and with which award?",
            "for what achievement did {name} win a prize, and which one?",
            "which honour was given to {name}, and for what reason?",
            "what did {name} win, and for what achievement?",
            "what are the name of {name}'s award and the reason for it?",
        ),
        clauses=(
            "which award {name} received and what for",
            "the name of {name}'s award and the reason for it",
            "what {name} was honoured for, and with which award",
            "what {name} won, and for what achievement",
            "for what achievement {name} was honoured, and with which award",
        ),
        fragments=(
            "the {a}, for {b}",
            "for {b}: the {a}",
            "the {a}; the reason was {b}",
            "award: the {a}; reason: {b}",
            "for {b}, with the {a}",
            "the {a}, in return for {b}",
        ),
        sentences=(
            "{name} received the {a} for {b}",
            "{sur} won the {a} for {b}",
            "the {a} was given to {name} for {b}",
            "for {b}, {sur} was honoured with the {a}",
            "it was for {b} that {s} received the {a}",
            "{s} was awarded the {a}, and the reason was {b}",
            "{p} award was the {a}, and {s} earned it by {b}",
            "the jury of the {a} chose {sur} for {b}",
            "by {b}, {name} earned the {a}",
            "the {a} went to {sur} in recognition of {b}",
            "a reward for {b} came to {name} in the form of the {a}",
            "{name} was a holder of the {a}, which {s} was given for {b}",
        ),
    ),
    "studies": Wording(
        questions=(
            "what did {name} study, and at which university?",
            "where did {name} study, and which subject?",
            "which subject did {name} read at university, and where?",
            "what were {name}'s subject and university?",
            "at which university did {name} take a degree, and in what?",
            "in which subject was {name} trained, and where?",
        ),
        clauses=(
            "what {name} studied and at which university",
            "the subject and the place of {name}'s studies",
            "where {name} studied, and which subject",
            "which university {name} attended, and for which subject",
            "which degree {name} took and where",
        ),
        fragments=(
            "in the field of {a}, at the {b}",
            "at the {b}, in {a}",
            "subject: {a}; place: the {b}",
            "the {b}, with {a} as the subject",
            "a degree in {a} from the {b}",
            "the subject was {a}, at the {b}",
        ),
        sentences=(
            "{name} studied {a} at the {b}",
            "{sur} took a degree in {a} at the {b}",
            "{s} read {a} at the {b}",
            "{name} was a student of {a} at the {b}",
            "it was at the {b} that {s} studied {a}",
            "the {b} granted {name} a degree in {a}",
            "{p} subject was {a}, and {p} university was the {b}",
            "{sur} enrolled at the {b} and graduated in {a}",
            "{s} attended the {b}, where {p} field was {a}",
            "{sur}'s student years were spent on {a} at the {b}",
            "a degree in {a} was awarded to {name} by the {b}",
            "the {b} was where {sur} was trained in {a}",
        ),
    ),
    "music": Wording(
        questions=(
            "which instrument did {name} play, and who taught it?",
            "what did {name} learn to play, and from which teacher?",
            "who was {name}'s music teacher, and for which instrument?",
            "what were {name}'s instrument and teacher?",
            "by whom was {name} taught music, and on which instrument?",
            "from whom did {name} take lessons, and on what instrument?",
        ),
        clauses=(
            "which instrument {name} played and who taught it",
            "the instrument and the music teacher of {name}",
            "what {name} learned to play, and from which teacher",
            "who gave {name} music lessons, and on which instrument",
            "which instrument {name} was taught, and by whom",
        ),
        fragments=(
            "the {a}, with {b}",
            "the {a}; the teacher was {b}",
            "{b}, on the {a}",
            "instrument: {a}; teacher: {b}",
            "the {a}, taught by {b}",
            "{b} was the teacher, and the instrument was the {a}",
        ),
        sentences=(
            "{name} learned to play the {a} from {b}",
            "{sur} played the {a} and was taught by {b}",
            "{s} took lessons on the {a} with {b}",
            "{b} taught {name} to play the {a}",
            "it was {b} who taught {sur} the {a}",
            "the {a} was {p} instrument, and {b} was {p} teacher",
            "{p} teacher was {b}, and {p} instrument was the {a}",
            "{name} was taught the {a} by {b}",
            "under {b}, {sur} became a player of the {a}",
            "{sur} was a pupil of {b} and took lessons on the {a}",
            "as a pupil of {b}, {name} mastered the {a}",
            "lessons with {b} turned {sur} into a player of the {a}",
        ),
    ),
}
ATTRIBUTES = tuple(WORDINGS)


@cache
def question_forms(attribute: str) -> tuple[str, ...]:
    """All question templates of an attribute; the first one is canonical."""
    wording = WORDINGS[attribute]
    direct = [prefix + q for prefix in QUESTION_PREFIXES for q in wording.questions]
    return (*direct, *(r.format(clause) for r in REQUESTS for clause in wording.clauses))


@cache
def answer_forms(attribute: str) -> dict[str, tuple[str, ...]]:
    """All answer templates of an attribute by kind; the first 'plain' one is canonical."""
    wording = WORDINGS[attribute]
    sentences = wording.sentences
    forms = {
        "bare": wording.fragments,
        "plain": sentences,
        "lead": [lead + s for lead in LEADS for s in sentences],
        "close": [s + closing for closing in CLOSINGS for s in sentences],
        "both": [ld + s + cl for ld in LEADS for cl in CLOSINGS for s in sentences],
    }
    return {kind: tuple(text + "." for text in texts) for kind, texts in forms.items()}


def say(attribute: str, kind: str, form: int, fields: Mapping[str, str]) -> tuple[str, str]:
    """Question and answer number `form` of a kind; number 0 of 'plain' is the canonical one."""
    questions = question_forms(attribute)
    answer, question = divmod(form, len(questions))
    asked = questions[question].format_map(fields)
    said = answer_forms(attribute)[kind][answer].format_map(fields)
    return asked[0].upper() + asked[1:], said[0].upper() + said[1:]
