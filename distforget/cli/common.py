"""Options, consoles and error handling that all commands share."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast, get_args

import typer
from rich.console import Console

from distforget.errors import UsageError
from distforget.frozen import NAME_PATTERN
from distforget.placement import Placement

console = Console(width=None if sys.stdout.isatty() else 150)
errors = Console(stderr=True)

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Preset (see `list presets`) or path of a YAML file.")
]
StoreOption = Annotated[
    str, typer.Option("--store", help="Folder of results, or s3://BUCKET/PREFIX (gs://, az://).")
]


def checked_name(name: str) -> str:
    """The value of --name.

    Raises:
        UsageError: it cannot be the name of a folder.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        raise UsageError(f"--name {name!r}: names are letters, digits, '.', '_' and '-'")
    return name


Dtype = Literal["float32", "bfloat16"]


def checked_dtype(option: str, dtype: str) -> Dtype:
    """The value of an option that names a dtype.

    Raises:
        UsageError: it is none that models are run in.
    """
    if dtype not in get_args(Dtype):
        raise UsageError(f"{option} {dtype!r}: choose {' or '.join(get_args(Dtype))}")
    return cast(Dtype, dtype)


def placed(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that gives a command options for these fields of Placement, or for all fields.

    The command takes a `placement` instead of them.
    """
    chosen = names or tuple(Placement.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**values: Any) -> None:
            given = {name: values.pop(name) for name in chosen}
            command(**values, placement=placement_of(**given))

        own = inspect.signature(command, eval_str=True).parameters.values()
        options = [*(p for p in own if p.name != "placement"), *map(_option, chosen)]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__annotations__ = {p.name: p.annotation for p in options}
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # read by inspect
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in options]
        )
        return called

    return decorate


def _option(name: str) -> inspect.Parameter:
    field = Placement.model_fields[name]
    values = get_args(field.annotation)
    kind = type(values[0]) if values else field.annotation
    said = f"{field.description}." if field.description else ""
    help = said[0].upper() + said[1:] if said else ""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[kind, typer.Option(help=help)],
    )


def placement_of(**values: Any) -> Placement:
    """Build a Placement from options; an error names the option that is wrong."""
    from pydantic import ValidationError

    try:
        return Placement.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {first['msg']}, not {json.dumps(first['input'])}") from error
