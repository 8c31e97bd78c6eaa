"""The command line: parses and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from distforget.cli import asking, looking, running
from distforget.cli.common import errors
from distforget.study import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Did the model really forget, when the training data holds samples similar to the "
    "forgotten one? Builds similarity-entailed data, fine-tunes, unlearns, asks and compares.",
)
for command in (
    running.run, running.plan, running.status, looking.report, looking.query, looking.figures,
    looking.compare, looking.export, asking.ask, asking.reproduce, asking.reconstruct, running.tune,
    running.doctor,
):  # fmt: skip
    app.command()(command)
app.command("list")(looking.list_)


def main() -> None:
    """Entry point: usage errors exit with 2 and one line, failures of the store with 1."""
    from distforget.store import StoreError

    try:
        app()
    except UsageError as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except StoreError as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)
