"""Shows how far each score can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from distforget.analysis.trust import Trust, trust
from distforget.attacks import attack_of, name_of
from distforget.plan import Plan
from distforget.probes import names_written
from distforget.report.tables import Shown
from distforget.store import Store

FEW = 8
"""Targets below which an AUC says little."""


def seconds_of(plan: Plan, store: Store) -> dict[str, float]:
    """Mean seconds that scoring a state took, by score; asking it is not counted."""
    spent: dict[str, list[float]] = {}
    done = store.done(step.key for step in plan.probes)
    for step in plan.probes:
        if step.key in done:
            seconds = store.manifest(step.key).get("seconds")
            if seconds is not None:
                spent.setdefault(step.about["probe"], []).append(float(seconds))
    return {
        metric: float(np.mean(spent[config.kind]))
        for config in plan.study.probes
        if config.kind in spent
        for metric in names_written(config)
    }


def table_of(found: Sequence[Trust], seconds: Mapping[str, float]) -> pd.DataFrame:
    """One row a score."""
    return pd.DataFrame([{**vars(one), "seconds": seconds.get(one.metric)} for one in found])


MEANINGS = (
    "tells: probability that a model which was trained on a target scores higher than one which "
    "was not (AUC over targets; 0.5 is chance). orders: probability that similar samples score "
    "higher where more were trained on. moves: change of the score under harmless changes of the "
    "model, as a share of the difference that training makes."
)


def shown(found: Sequence[Trust], seconds: Mapping[str, float] | None = None) -> Shown:
    """All scores, best first, and what to lean on.

    Args:
        seconds: see `seconds_of`; None leaves them out.
    """
    cost = "" if seconds is None else " seconds: to score a state, asking it not counted."
    return Shown(
        "Which score can be trusted?",
        f"{lean_on(found)} {MEANINGS}{cost} '-': the study has nothing that shows it.",
        ["score", "tells", "orders", "moves", *["seconds"] * (seconds is not None)],
        1,
        [
            [
                one.metric,
                *(_said(value) for value in (one.tells, one.orders, one.moves)),
                *([] if seconds is None else [_said(seconds.get(one.metric, float("nan")))]),
            ]
            for one in found
        ],
    )


def lean_on(found: Sequence[Trust]) -> str:
    """Says which scores tell most; '' if there are none."""
    if not found:
        return ""
    best = [one.metric for one in found if round(one.tells, 3) == round(found[0].tells, 3)]
    few = f"; with {found[0].targets} targets that says little" * (found[0].targets < FEW)
    return f"Lean on {', '.join(best[:3])} (tells {found[0].tells:.2f}{few})."


def of_study(plan: Plan, scores: pa.Table) -> list[Trust]:
    """The scores of a study, those that tell most first.

    Args:
        scores: of all states, attacked or not.
    """
    harmless = [name_of(c) for c in plan.study.attacks if attack_of(c).harmless(c)]
    return trust(scores, harmless)


def _said(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
