"""What decides a result, and the fields in which two payloads differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Difference = tuple[str, object, object]
"""A field's dotted path and its values on both sides; None if a side lacks the field."""


def differences(left: Mapping[str, object], right: Mapping[str, object]) -> list[Difference]:
    """The fields in which two nested mappings differ, by name."""
    one, other = flat(left), flat(right)
    return [
        (name, one.get(name), other.get(name))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flattens a nested mapping; keys become dotted paths."""
    found: dict[str, object] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found |= flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


class KeyedStep(Protocol):
    """What the store needs to know about a step."""

    @property
    def key(self) -> str:
        """sha256 of the payload, hexadecimal."""
        ...

    @property
    def payload(self) -> str:
        """Canonical JSON of all that decides the result."""
        ...

    @property
    def stage(self) -> str:
        """Name of the stage."""
        ...

    @property
    def title(self) -> str:
        """Readable name, for messages and the manifest."""
        ...
