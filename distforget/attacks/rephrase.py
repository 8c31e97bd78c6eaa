"""Asks each target in the words of its similar samples: was the fact forgotten, or the question?"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from distforget.attacks import Attack
from distforget.attacks._questions import with_questions
from distforget.parts import Part


class RephraseConfig(Part):
    """A target's question is replaced by that of a similar sample; the true answer stays."""

    kind: Literal["rephrase"] = "rephrase"
    rank: int = Field(1, ge=1, description="of the similar sample whose question is asked")


def asks(asked: pa.Table, samples: pa.Table, config: RephraseConfig) -> pa.Table:
    """Targets with another question; other samples, and targets without such one, as they are."""
    mine = pc.and_(
        pc.equal(samples["role"], "similar"),
        pc.equal(pc.fill_null(samples["similar_rank"], 0), config.rank),
    )
    found = samples.filter(mine)
    questions = dict(
        zip(found["target_index"].to_pylist(), found["question"].to_pylist(), strict=True)
    )

    def change(sample: dict[str, Any]) -> str:
        own: str = sample["question"]
        return questions.get(sample["target_index"], own) if sample["role"] == "target" else own

    return with_questions(asked, change)


ATTACK = Attack(
    config=RephraseConfig,
    version=1,
    source="a fact that was unlearned is asked for in other words (Lynch et al. 2024, Eight "
    "Methods to Evaluate Robust Unlearning in LLMs)",
    asks=asks,
    named=lambda config: f"rephrase-{config.rank}",
    track="text",
)
