"""Compares a cell's stored tables with those of a second run, row by row."""

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
        "unlearned", "attack", "role", "target_index", "cell", "key", "state", "attempts",
        "error_class", "error_message", "error_traceback",
    }
)  # fmt: skip
"""Columns that say whose a row is, or that are the same in all that is done."""
NO_ROW = "no row"


@dataclass(frozen=True)
class Value:
    """One value on both sides."""

    table: str
    row: str
    """The row it belongs to, e.g. 'sample 4, rougeL_recall'; empty in a table of one row."""
    column: str
    stored: object
    new: object
    word: Word

    @property
    def distance(self) -> float | None:
        """Distance between two numbers, or the largest between two lists; None for other values."""
        pairs = _pairs(self.stored, self.new)
        return max((abs(new - stored) for stored, new in pairs), default=None)


def compare_values(
    stored: Mapping[str, pa.Table], new: Mapping[str, pa.Table], tolerance: float
) -> list[Value]:
    """Compares every value of a cell's result except times and attempts.

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
    """The worst word among all values, which is the verdict on the cell."""
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
    words = [_word_of_numbers(*pair, tolerance) for pair in _pairs(stored, new)]
    return max(words, key=WORDS.index, default="different")


def _pairs(stored: object, new: object) -> list[tuple[float, float]]:
    """The numbers with a fraction on both sides: of a value, or of lists as long as each other."""
    one, other = ([v] if isinstance(v, float) else v for v in (stored, new))
    if not (isinstance(one, list) and isinstance(other, list) and len(one) == len(other)):
        return []
    pairs = list(zip(one, other, strict=True))
    return pairs if all(isinstance(v, float) for pair in pairs for v in pair) else []


def _word_of_numbers(stored: float, new: float, tolerance: float) -> Word:
    if stored == new or (math.isnan(stored) and math.isnan(new)):
        return "equal"
    scale = max(1.0, abs(stored), abs(new))
    close = math.isfinite(scale) and abs(new - stored) <= tolerance * scale
    return "within tolerance" if close else "different"
