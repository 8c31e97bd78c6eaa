"""What the five kinds of parts share: a frozen configuration with a `kind`, found by a scan.

A part is one file in the folder of its kind, e.g. `sources/npz.py`. The file holds a configuration
(a subclass of :class:`Part`), the function that does the work, and a constant that describes both.
Studies, plans, lists and the JSON Schema read the scan, so a new part needs no other change.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import (
    Discriminator,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)
from pydantic_core import CoreSchema, core_schema

from distforget.frozen import Frozen


class Part(Frozen):
    """Base of every part's configuration; a subclass gives `kind` its one value."""

    kind: str

    @model_serializer(mode="wrap")
    def _kind_is_always_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `kind` even if defaults are omitted, since a part cannot be read without it."""
        return {"kind": self.kind, **handler(self)}


@cache
def scan(package: str, constant: str) -> Mapping[str, Any]:
    """The parts of a folder by kind, in the order of their names.

    Args:
        package: e.g. 'distforget.sources'. Modules whose names begin with _ are helpers.
        constant: what each module calls its description, e.g. 'SOURCE'.
    """
    folder = Path(str(importlib.import_module(package).__file__)).parent
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    return {kind_of(getattr(m, constant).config): getattr(m, constant) for m in modules}


def kind_of(config: type[Part]) -> str:
    """The kind that a configuration stands for."""
    return str(config.model_fields["kind"].default)


@dataclass(frozen=True)
class OneOf:
    """Annotation of a field that holds the configuration of one of these parts.

    The kind alone may be written instead of a mapping: `digits` is `{kind: digits}`.
    """

    configs: tuple[type[Part], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        members = tuple(Annotated[config, Tag(kind_of(config))] for config in self.configs)
        if len(members) == 1:
            tagged = handler.generate_schema(self.configs[0])
        else:
            union: Any = Union[members]  # noqa: UP007 # its members are known only at run time
            tagged = handler.generate_schema(Annotated[union, Discriminator("kind")])
        return _from_short_form(tagged)


def _from_short_form(schema: CoreSchema) -> CoreSchema:
    return core_schema.no_info_before_validator_function(
        lambda value: {"kind": value} if isinstance(value, str) else value, schema
    )


def key_of(config: Part, version: int, unkeyed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything about a part that decides a result, for the configuration of a step.

    Args:
        unkeyed: fields that decide no result, such as a path whose content is keyed.
    """
    return {"version": version, **config.model_dump(mode="json", exclude=set(unkeyed))}
