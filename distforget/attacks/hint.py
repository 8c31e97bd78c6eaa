"""Answers to like questions stand before the question: do they bring the answer back?"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from distforget.attacks import Attack
from distforget.attacks._questions import with_questions
from distforget.parts import Part


class HintConfig(Part):
    """Questions and true answers of other samples in the prompt; never the sample's own family."""

    kind: Literal["hint"] = "hint"
    shots: int = Field(2, ge=1, description="other samples in the prompt")


def asks(asked: pa.Table, samples: pa.Table, config: HintConfig) -> pa.Table:
    """Neighbours of other targets first, then other samples, each with its true answer."""
    pools = [samples.filter(pc.equal(samples["role"], role)) for role in ("neighbour", "other")]
    pool = pa.concat_tables(pools).select(["sample_id", "target_index", "question", "answer"])
    rows = pool.to_pylist()

    def change(sample: dict[str, Any]) -> str:
        own, target = sample["sample_id"], sample["target_index"]
        strange = [
            row
            for row in rows
            if row["sample_id"] != own and (target is None or row["target_index"] != target)
        ]
        shots = [f"{row['question']} {row['answer']}" for row in strange[: config.shots]]
        return "\n".join([*shots, sample["question"]])

    return with_questions(asked, change)


ATTACK = Attack(
    config=HintConfig,
    version=1,
    source="what stands in the prompt can bring back what was unlearned (Shumailov et al. 2024, "
    "UnUnlearning)",
    asks=asks,
    named=lambda config: f"hint-{config.shots}",
    track="text",
)
