"""Holds what a cell left against what it leaves when it is run again, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from distforget import schemas

Word = Literal["equal", "within tolerance", "different"]
WORDS: tuple[Word, ...] = ("equal", "within tolerance", "different")
"""From best to worst."""

ROW = ("sample_id", "metric")
"""What tells the rows of one cell's table apart, as far as the table has it."""
ABOUT = frozenset(
    {
        *ROW, "track", "dataset", "model", "phase", "dose", "seed", "method", "variant",
        "unlearned", "role", "target_index", "cell", "key", "state", "attempts", "error_class",
        "error_message", "error_traceback",
    }
)  # fmt: skip
"""Columns that say whose a row is, or that are the same in all that is done."""
NO_ROW = "no row"


@dataclass(frozen=True)
class Value:
    """One value on both sides."""

    table: str
    row: str
    """Whose it is, e.g. 'sample 4, rougeL_recall'; empty in a table of one row."""
    column: str
    stored: object
    new: object
    word: Word

    @property
    def distance(self) -> float | None:
        """How far numbers with a fraction are apart; None of other values."""
        if isinstance(self.stored, float) and isinstance(self.new, float):
            return abs(self.new - self.stored)
        return None


def compare_values(
    stored: Mapping[str, pa.Table], new: Mapping[str, pa.Table], tolerance: float
) -> list[Value]:
    """Every value that a cell's result holds, but times and attempts.

    Numbers with a fraction are within the tolerance where they are no further apart than
    tolerance * max(1, |stored|, |new|): on the scores' own scale, and relative above 1. All else,
    texts, whole numbers and pixels, is equal or different. A table or row that only one side has
    is different.

    Args:
        stored: tables of one cell by name.
        new: the same, computed again.
    """
    return [
        value
        for name in sorted(stored.keys() | new.keys())
        for value in _values(name, _rows(stored.get(name)), _rows(new.get(name)), tolerance)
    ]


def worst(values: list[Value]) -> Word:
    """What is to be said of all values together."""
    return max((value.word for value in values), key=WORDS.index, default="equal")


def _rows(table: pa.Table | None) -> dict[tuple[Any, ...], dict[str, Any]]:
    if table is None:
        return {}
    names = [name for name in ROW if name in table.column_names]
    return {tuple(row[name] for name in names): row for row in table.to_pylist()}


def _values(
    name: str,
    stored: Mapping[tuple[Any, ...], Mapping[str, Any]],
    new: Mapping[tuple[Any, ...], Mapping[str, Any]],
    tolerance: float,
) -> Iterator[Value]:
    described = schemas.describe(name).columns
    columns = [c for c, column in described.items() if c not in ABOUT and column.unit != "s"]
    for key in [*stored, *(key for key in new if key not in stored)]:
        row = f"sample {', '.join(map(str, key))}" if key else ""
        if key not in stored or key not in new:
            sides = ("a row", NO_ROW) if key in stored else (NO_ROW, "a row")
            yield Value(name, row, "", *sides, "different")
            continue
        for column in columns:
            one, other = stored[key][column], new[key][column]
            yield Value(name, row, column, one, other, _word(one, other, tolerance))


def _word(stored: object, new: object, tolerance: float) -> Word:
    if stored == new:
        return "equal"
    if isinstance(stored, float) and isinstance(new, float):
        if math.isnan(stored) and math.isnan(new):
            return "equal"
        scale = max(1.0, abs(stored), abs(new))
        if math.isfinite(scale) and abs(new - stored) <= tolerance * scale:
            return "within tolerance"
    return "different"
