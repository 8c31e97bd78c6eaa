"""Trains on a little: does what was unlearned come back?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distforget.attacks import Attack, Attacked
from distforget.parts import Part


class RelearnConfig(Part):
    """A few optimiser steps on samples that an attacker may hold; never the target itself."""

    kind: Literal["relearn"] = "relearn"
    rows: Literal["similar", "others", "nearest", "target"] = Field(
        "similar",
        description="the target's similar samples; other samples, drawn; those of the others that "
        "are most like the target; or the next target, another one",
    )
    steps: int = Field(10, ge=1, description="optimiser steps, as many whatever they are on")
    learning_rate: float = Field(2e-5, gt=0, description="AdamW, constant")
    batch_size: int = Field(4, ge=1, description="samples in a step; fewer if there are fewer")


def run(state: Attacked, config: RelearnConfig) -> None:
    """Take the steps."""
    match config.rows:
        case "similar":
            found = state.similar()
        case "others":
            found = state.others(config.steps * config.batch_size)
        case "nearest":
            found = state.nearest(config.steps * config.batch_size)
        case "target":
            found = state.another_target()
    state.train(found, config.steps, config.learning_rate, config.batch_size)


ATTACK = Attack(
    config=RelearnConfig,
    version=1,
    source="a few steps of training bring back what was unlearned (Hu et al. 2025, Unlearning or "
    "Obfuscating? Jogging the Memory of Unlearned LLMs via Benign Relearning)",
    run=run,
    named=lambda config: f"relearn-{config.rows}-{config.steps}",
    harmless=lambda config: config.rows == "others",
    of_target=True,
)
