"""Reads studies from presets and YAML files, and says what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from distforget import disk
from distforget.errors import UsageError
from distforget.frozen import NAME_PATTERN
from distforget.parts import OneOf, kind_of
from distforget.study import Study

PRESETS = Path(__file__).parent / "presets"


def load_study(preset_or_file: str) -> Study:
    """Read a Study from a preset name or a YAML file.

    Raises:
        UsageError: the file is missing, not YAML, or a field is wrong; names file, field and fix.
    """
    path = Path(preset_or_file)
    if re.match(NAME_PATTERN, preset_or_file) and not path.suffix:
        path = PRESETS / f"{preset_or_file}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UsageError(
            f"{preset_or_file}: no such preset or file; presets: {known}; or give a path to a .yaml"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a study is a mapping of fields, e.g. 'name: my-study'")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        shown, model = _walk(first["loc"])
        fix = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            fix = f"unknown key; known keys here: {', '.join(sorted(model.model_fields))}"
        if first["type"] == "union_tag_invalid":
            fix = f"unknown kind {first['ctx']['tag']!r}; known: {first['ctx']['expected_tags']}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"{path}: {'.'.join(shown) or 'study'}: {fix}{more}") from error


def write_study(study: Study, path: Path) -> None:
    """Write a study as a YAML file that :func:`load_study` reads.

    Raises:
        OSError: it cannot be written.
    """
    content = study.model_dump(mode="json", exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    disk.write(path, text.encode())


def _walk(location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel]]:
    """The names that the user wrote on the way to a field, and the model that holds it.

    Pydantic's location also names the member of each union that it took.
    """
    shown: list[str] = []
    model: type[BaseModel] = Study
    members: dict[str, type[BaseModel]] = {}
    for place, part in enumerate(location):
        if part in members:
            model = members[str(part)]
            continue
        shown.append(str(part))
        if isinstance(part, str) and part in model.model_fields and place < len(location) - 1:
            field = model.model_fields[part]
            members = _members((field.annotation, *field.metadata))
            model = next(iter(members.values()), model)
    return shown, model


def _members(annotations: tuple[object, ...]) -> dict[str, type[BaseModel]]:
    """The models that a field may hold, by their tags."""
    found: dict[str, type[BaseModel]] = {}
    for annotation in annotations:
        if isinstance(annotation, OneOf):
            found |= {kind_of(config): config for config in annotation.configs}
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found[getattr(annotation, "track", annotation.__name__)] = annotation
        else:
            inner = (*getattr(annotation, "__args__", ()), *getattr(annotation, "__metadata__", ()))
            found |= _members(inner)
    return found
