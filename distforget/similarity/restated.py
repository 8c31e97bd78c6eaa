"""Restatements of a built-in person's fact: the same fact, asked for and stated in other words."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import model_validator

from distforget.similarity import Similarity, SimilarTexts
from distforget.sources._base import Text, base_table
from distforget.sources._facts import wrong_answers
from distforget.sources._shuffle import shuffle
from distforget.sources._wordings import (
    ATTRIBUTES,
    KIND_ORDER,
    KINDS,
    answer_forms,
    question_forms,
    say,
)


class RestatedConfig(SimilarTexts):
    """Restatements by templates."""

    kind: Literal["restated"] = "restated"

    @model_validator(mode="after")
    def _there_are_enough(self) -> RestatedConfig:
        if self.per_target + self.paraphrases > most():
            raise ValueError(
                f"per_target and paraphrases are {self.per_target} and {self.paraphrases}, but "
                f"there are {most()} restatements of a target; lower one of them"
            )
        return self


def make(families: pa.Table, config: RestatedConfig, seed: int) -> pa.Table:
    """The restatements of each target; number i of a target depends on (seed, target, i) alone."""
    return base_table(
        [
            _restated(row["target_index"], rank, dict(row["told"]), config, seed)
            for row in families.to_pylist()
            if row["role"] == "target"
            for rank in range(1, config.per_target + config.paraphrases + 1)
        ]
    )


def most() -> int:
    """Number of distinct restatements that every target has at least."""
    return min(
        len(KIND_ORDER) * (_number_of(attribute, kind) // KIND_ORDER.count(kind))
        for attribute in ATTRIBUTES
        for kind in KINDS
    )


def _number_of(attribute: str, kind: str) -> int:
    """Question-answer forms of a kind, without the canonical one, which is the target's own."""
    forms = len(question_forms(attribute)) * len(answer_forms(attribute)[kind])
    return forms - (kind == "plain")


def _restated(
    target: int, rank: int, told: dict[str, str], config: RestatedConfig, seed: int
) -> Text:
    attribute = told["attribute"]
    cycle, place = divmod(rank - 1, len(KIND_ORDER))
    kind = KIND_ORDER[place]
    number = cycle * KIND_ORDER.count(kind) + KIND_ORDER[:place].count(kind)
    order = shuffle(_number_of(attribute, kind), seed, "restatement", target - 1, kind)
    form = order(number) + (kind == "plain")
    question, answer = say(attribute, kind, form, told)
    return Text(
        "similar" if rank <= config.per_target else "paraphrase",
        question,
        answer,
        facts=(told["a"], told["b"]),
        wrong_answers=wrong_answers(attribute, kind, form, told, seed),
        target_index=target,
        similar_rank=rank,
    )


SIMILARITY = Similarity(
    config=RestatedConfig,
    version=2,
    source="the target's fact in other words, by templates; made for this package",
    track="text",
    make=make,
    needs="what each text is made of",
)
