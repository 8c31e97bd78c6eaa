"""What all commands share: options, and where they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from distforget.placement import Placement
from distforget.study import UsageError

console = Console(width=None if sys.stdout.isatty() else 150)
errors = Console(stderr=True)

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Preset (see `list presets`) or path of a YAML file.")
]
StoreOption = Annotated[
    Path, typer.Option("--store", help="Folder of results; shared storage on a cluster.")
]

AddressOption = Annotated[str, typer.Option(help="Ray cluster; empty: this machine.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
CpusOption = Annotated[int, typer.Option(help="CPU cores to use here; 0: all.")]
CellWorkersOption = Annotated[int, typer.Option(help="Cells at once; 0: one a core.")]


def placement_of(**values: Any) -> Placement:
    """Where a run goes by its options, or the option that does not hold."""
    from pydantic import ValidationError

    try:
        return Placement.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {first['msg']}, not {json.dumps(first['input'])}") from error
