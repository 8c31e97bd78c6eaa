"""Gives the samples asked other questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa


def with_questions(asked: pa.Table, change: Callable[[dict[str, Any]], str]) -> pa.Table:
    """These samples, each with the question that `change` makes of it; choices stay as they are."""
    rows = asked.to_pylist()
    questions = [row["question"] if row["choices"] else change(row) for row in rows]
    place = asked.schema.get_field_index("question")
    return asked.set_column(place, asked.schema.field(place), pa.array(questions, pa.string()))
