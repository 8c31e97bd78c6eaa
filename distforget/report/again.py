"""Prints a stored cell beside its second run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget.analysis.reproduction import WORDS, Value, Word
from distforget.payload import flat
from distforget.report.progress import duration

COLOURS = {"equal": "green", "within tolerance": "yellow", "different": "red"}


def print_reproduction(
    cell: str, values: Sequence[Value], word: Word, tolerance: float, rows: int, console: Console
) -> None:
    """Print how many values of each column are equal, those that are not, and a verdict."""
    counted = Table(title=f"cell {cell}, run again", title_justify="left")
    for name in ("table", "column", *WORDS, "largest difference"):
        counted.add_column(name, justify="left" if name in ("table", "column") else "right")
    for table, column in dict.fromkeys((value.table, value.column) for value in values):
        mine = [v for v in values if (v.table, v.column) == (table, column)]
        apart = [v.distance for v in mine if v.distance is not None]
        largest = f"{max(apart):.3g}" if apart else ""
        counts = [str(sum(v.word == w for v in mine)) for w in WORDS]
        counted.add_row(table, column or "rows", *counts, largest)
    console.print(counted)
    apart_first = sorted(values, key=lambda v: -WORDS.index(v.word))
    differing = [value for value in apart_first if value.word != "equal"]
    if differing:
        _print_values(differing, rows, console)
    console.print(
        f"cell {escape(cell)}: [{COLOURS[word]}]{word}[/{COLOURS[word]}]; tolerance {tolerance:g}: "
        "numbers apart by at most tolerance * max(1, either of them)"
    )


def _print_values(differing: Sequence[Value], rows: int, console: Console) -> None:
    table = Table(title="what is not equal", title_justify="left")
    for name in ("table", "row", "column", "stored", "now", "difference", ""):
        table.add_column(name, overflow="fold")
    for value in differing[:rows]:
        apart = "" if value.distance is None else f"{value.distance:.3g}"
        shown = (value.table, value.row, value.column, _shown(value.stored), _shown(value.new))
        table.add_row(*map(escape, shown), apart, value.word)
    console.print(table)
    if len(differing) > rows:
        console.print(f"{rows} of {len(differing)} values; --rows prints more")


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        start = value[:8].hex(" ")
        return f"{len(value)} bytes: {start} ..."
    if isinstance(value, list):
        return f"{len(value)} values: {', '.join(f'{v:.6g}' for v in value[:3])} ..."
    return repr(value) if isinstance(value, str | float) else str(value)


def print_facts(stored: Mapping[str, Any], new: Mapping[str, Any], console: Console) -> None:
    """Print device, versions, commit, host and seconds of both runs."""
    table = Table(title="where both were computed", title_justify="left")
    for name in ("", "stored", "now"):
        table.add_column(name, overflow="fold")
    one, other = flat(stored), flat(new)
    for name in [*one, *(name for name in other if name not in one)]:
        shown = (_fact(name, facts.get(name)) for facts in (one, other))
        table.add_row(name.removeprefix("versions."), *shown)
    console.print(table)


def _fact(name: str, value: object) -> str:
    if name == "seconds" and isinstance(value, float):
        return duration(value)
    return "" if value is None else escape(str(value))
