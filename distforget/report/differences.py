"""Prints how two studies differ: settings, devices, cells and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget.analysis.comparisons import CHOICE_MARGIN, written_name
from distforget.analysis.differences import (
    ABOUT,
    EQUAL,
    Overlap,
    differences,
    overlap,
    unpaired,
)
from distforget.analysis.doses import BEFORE
from distforget.analysis.settings import Setting, settings
from distforget.errors import UsageError
from distforget.metrics import CHOICE_ACCURACY
from distforget.plan import Plan, cell_name
from distforget.report.study_tables import facts_of, read_current
from distforget.report.words import interval, method_name
from distforget.store import Store

NAMED = 4
"""Number of cells that are named if only one side has them."""


@dataclass(frozen=True)
class Comparison:
    """The differences between two studies, A and B."""

    metric: str
    margin: float
    """The smallest difference of the metric that matters; 0 where none was stated."""
    settings: Sequence[Setting]
    methods: int
    """Methods and variants that both studies plan."""
    shared: Overlap
    alone: tuple[int, int]
    """Scores in shared cells and states that A alone has, and B alone."""
    facts: tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]
    """Facts about the shared cells in A and in B, as `facts_of` gives them."""
    scores: pd.DataFrame
    """The table that `analysis.differences.differences` returns."""

    @property
    def equal(self) -> bool:
        """Whether every score that both have is the same."""
        return bool((self.scores["word"] == EQUAL).all())


def compare(a: tuple[Plan, Store], b: tuple[Plan, Store], metric: str) -> Comparison:
    """Compare the tables of two studies, or of one study in two stores.

    Args:
        metric: the score compared; empty: that of A's verdicts.

    Raises:
        UsageError: of two tracks, or without that score, or not run, or tables of other settings.
        StoreError: a result is gone or damaged.
    """
    studies = [plan.study for plan, _ in (a, b)]
    if studies[0].track != studies[1].track:
        raise UsageError(
            f"study {studies[0].name} is of track {studies[0].track}, {studies[1].name} of "
            f"{studies[1].track}; compare two of one track"
        )
    verify = studies[0].verify
    one, other = read_current(*a), read_current(*b)
    of_verdicts = written_name(studies[0].metric, one.scores)
    metric = written_name(metric, one.scores) if metric else of_verdicts
    for study, tables in zip(studies, (one, other), strict=True):
        scored = sorted(tables.scores["metric"].unique().to_pylist())
        if scored and metric not in scored:
            raise UsageError(f"--metric {metric}: study {study.name} scores {', '.join(scored)}")
    names = [[cell_name(step) for step in plan.cells] for plan, _ in (a, b)]
    shared = overlap(names[0], one.cells, names[1], other.cells)
    margin = {of_verdicts: verify.margin, CHOICE_ACCURACY: CHOICE_MARGIN}.get(metric, 0.0)
    return Comparison(
        metric,
        margin,
        settings(a[0], b[0]),
        len(_methods(a[0]) & _methods(b[0])),
        shared,
        unpaired(one.scores, other.scores, metric),
        (facts_of(*a, shared.both), facts_of(*b, shared.both)),
        differences(one.scores, other.scores, metric, margin),
    )


def _methods(plan: Plan) -> set[tuple[str, str]]:
    return {(step.about["method"], step.about["variant"]) for step in plan.cells}


def print_comparison(found: Comparison, console: Console) -> None:
    """Print differences in settings, devices, cells and scores, and a conclusion."""
    _print_settings(found.settings, found.methods, console)
    _print_overlap(found.shared, found.alone, console)
    _print_facts(*found.facts, console)
    _print_scores(found, console)
    _print_conclusion(found, console)


def _print_settings(found: Sequence[Setting], methods: int, console: Console) -> None:
    """Print one line per field that differs; there are `methods` methods in all."""
    if not found:
        console.print("settings: no field differs in the steps that both plan")
        return
    table = Table(
        title="settings that differ in the steps that both plan",
        caption="None: the field is not there",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("stage", "field", "A", "B", "methods", "steps"):
        table.add_column(name, overflow="fold", justify="right" if name == "steps" else "left")
    for setting in found:
        every = len(setting.methods) == methods
        table.add_row(
            ", ".join(setting.stages), setting.field,
            *(escape(repr(value)) for value in (setting.left, setting.right)),
            "all" if every else ", ".join(setting.methods), str(setting.steps),
        )  # fmt: skip
    console.print(table)


def _print_facts(
    a: Mapping[str, tuple[str, ...]], b: Mapping[str, tuple[str, ...]], console: Console
) -> None:
    """Print one line per fact, such as device or package version, that differs."""
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    if not names:
        console.print("both were computed with the same versions on the same device")
        return
    table = Table(title="where the shared cells were computed", title_justify="left")
    for name in ("", "A", "B"):
        table.add_column(name, overflow="fold")
    for name in names:
        shown = (escape(", ".join(side.get(name, ()))) for side in (a, b))
        table.add_row(name.removeprefix("versions."), *shown)
    console.print(table)


def _print_overlap(found: Overlap, alone: tuple[int, int], console: Console) -> None:
    """Print how many cells both studies have, and which ones only one of them has."""
    console.print(f"cells: {len(found.both)} done on both sides")
    for side, other, names in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        if names:
            left = sum(name in found.unfinished for name in names)
            more = f", ... ({len(names) - NAMED} more)" if len(names) > NAMED else ""
            console.print(
                f"only {side} has {len(names)} cells: {escape(', '.join(names[:NAMED]))}{more}; "
                f"{other} plans {left} of them and has not done them",
                soft_wrap=True,
            )
    if any(alone):
        console.print(
            f"of the shared cells and states A alone scored {alone[0]} samples, B alone {alone[1]}"
        )


def _print_scores(found: Comparison, console: Console) -> None:
    """Print one line per model state and role with different scores."""
    lines, metric, margin = found.scores, found.metric, found.margin
    differing = lines[lines["word"] != EQUAL]
    scores = int(lines["samples"].sum())
    if differing.empty:
        console.print(f"scores: {scores} of {metric} compared, none differs")
        return
    table = Table(
        title=f"differences of {metric}, B minus A, in the same cells and samples",
        caption="means over targets and the 95 % interval of their mean difference (bootstrap over "
        "targets); largest: between two scores of one sample. B higher, B lower = at 5 % over all "
        f"lines (Holm) and by {margin:g} or more; about equal = surely within {margin:g}",
        title_justify="left",
        caption_justify="left",
    )
    left = ("model", "state", "samples", "word")
    for name in ("model", "state", "dose", "samples", "A", "B", "difference [95 %]", "largest",
                 "targets", "word"):  # fmt: skip
        table.add_column(
            escape(name),
            justify="left" if name in left else "right",
            no_wrap=name not in left,
            overflow="fold",
        )
    for row in differing.to_dict("records"):
        table.add_row(*_cells(row))
    console.print(table)
    equal = len(lines) - len(differing)
    console.print(
        f"{equal} of {len(lines)} lines are equal in every score and not shown; {scores} scores "
        "were compared"
    )


def _cells(row: Mapping[Any, Any]) -> list[str]:
    state = BEFORE.get(row["phase"]) or method_name(row["method"], row["variant"])
    reason = f": {row['reason']}" if row["reason"] else ""
    colour = {ABOUT: "green", "undecided": "yellow"}.get(row["word"], "red")
    return [
        row["model"],
        state,
        "" if pd.isna(row["dose"]) else f"{row['dose']:.0f}",
        row["role"],
        f"{row['a']:.3f}",
        f"{row['b']:.3f}",
        escape(f"{row['difference']:+.3f} {interval(row['low'], row['high'], 3)}".rstrip()),
        f"{row['largest']:.3g}",
        str(row["targets"]),
        f"[{colour}]{row['word']}[/{colour}]{reason}",
    ]


def _print_conclusion(found: Comparison, console: Console) -> None:
    """Print the conclusion in one sentence."""
    shared, lines = found.shared, found.scores
    if lines.empty:
        console.print("the studies have no cell and no state in common: nothing is compared")
    elif found.equal and not (found.settings or shared.only_a or shared.only_b or any(found.alone)):
        console.print("[green]the studies are the same[/green]: settings, cells and scores")
    elif found.equal:
        console.print("the scores that both have are [green]equal[/green]")
    else:
        counts = ", ".join(f"{n} {word}" for word, n in lines["word"].value_counts().items())
        console.print(f"the scores [yellow]differ[/yellow]: of {len(lines)} lines {counts}")
