"""Writes data as JavaScript files that a page opened from disk may load safely."""

from __future__ import annotations

import json
import math
from typing import Any

ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def script(name: str, data: Any) -> bytes:
    """A file that hands `data` to the page under a name.

    All but ASCII is escaped, and so is what could end a script or begin markup.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return f"page.receive({json.dumps(name)},{text.translate(ESCAPES)});\n".encode("ascii")


def number(value: float | None) -> float | str | None:
    """A number to four digits as JSON holds it: infinity in words, what is none as null."""
    if value is None or math.isnan(value):
        return None
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)
