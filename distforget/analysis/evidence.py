"""Summarises what scores say of the targets themselves: is a sample gone, and its influence?"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from distforget.analysis.doses import by_target
from distforget.analysis.intervals import combined
from distforget.probes import metric_named, probes


def evidence(scores: pa.Table) -> pd.DataFrame:
    """Summarises the evidence about targets, one row for each model, state and dose.

    Returns:
        Columns model, state, dose, those scores that say something of a single sample (means over
        targets and seeds; p-values combined over them) and n (targets times seeds).
    """
    there = set(scores["metric"].unique().to_pylist())
    every = (metric for probe in probes().values() for metric in probe.metrics)
    telling = [m.name for m in every if m.name in there and (m.tells or _is_p(m.name))]
    columns: dict[str, pd.Series[float] | pd.Series[int]] = {}
    for name in telling:
        each = by_target(scores, name, "target").groupby(["model", "state", "dose"])
        columns[name] = each.agg(lambda p: combined(p.to_numpy())) if _is_p(name) else each.mean()
        columns["n"] = each.size()
    if not columns:
        return pd.DataFrame(columns=["model", "state", "dose", "n"])
    found = pd.DataFrame(columns).reset_index()
    return found[[*found.columns.drop("n"), "n"]]


def meanings(metrics: Iterable[str]) -> str:
    """Explains the columns of that table, one sentence each."""
    said = ((name, metric_named(name).tells) for name in metrics)
    return " ".join(f"{name}: {tells}." for name, tells in said if tells)


def shown(metric: str, value: float) -> str:
    """Formats a number of that table; NaN becomes an empty string."""
    if value != value:
        return ""
    return f"{value:.2g}" if _is_p(metric) else f"{value:.2f}"


def _is_p(metric: str) -> bool:
    return metric.endswith("p_value")
