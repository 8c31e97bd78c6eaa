"""Prints how far each score can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from distforget.analysis.trust import Trust
from distforget.plan import Plan
from distforget.probes import names_written
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


def print_trust(found: Sequence[Trust], seconds: Mapping[str, float], console: Console) -> None:
    """Print a table of all scores, best first, and what to lean on."""
    table = Table("score", "tells", "orders", "moves", "seconds")
    for one in found:
        table.add_row(
            one.metric,
            *(_said(value) for value in (one.tells, one.orders, one.moves)),
            _said(seconds.get(one.metric, float("nan"))),
        )
    console.print(table)
    console.print(
        "tells: probability that a model which was trained on a target scores higher than one "
        "which was not (AUC over targets; 0.5 is chance). orders: probability that similar samples "
        "score higher where more were trained on. moves: change of the score under harmless "
        "changes of the model, as a share of the difference that training makes. seconds: to score "
        "a state, asking it not counted. '-': the study has nothing that shows it."
    )
    if found:
        best = [one.metric for one in found if round(one.tells, 3) == round(found[0].tells, 3)]
        few = f"; with {found[0].targets} targets that says little" * (found[0].targets < FEW)
        console.print(f"lean on: {', '.join(best[:3])} (tells {found[0].tells:.2f}{few})")


def _said(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
