"""The command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from distforget.cli import asking, auditing, looking, remote, running
from distforget.cli.common import errors
from distforget.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Did the model really forget, when the training data holds samples similar to the "
    "forgotten one? distforget builds such data, fine-tunes models on it, unlearns one target at a "
    "time, and compares what the models still know. Start with: distforget run demo",
)
for command in (
    running.run, remote.submit, running.plan, running.status, running.tune, running.doctor,
    looking.schema, looking.report, looking.query, looking.figures, looking.trust, looking.compare,
    looking.export, asking.ask, asking.reproduce, asking.reconstruct, auditing.verify,
    auditing.similar, auditing.audit,
):  # fmt: skip
    app.command()(command)
app.command("list")(looking.list_)


def main() -> None:
    """Entry point: usage errors print one line and exit with 2, failures of the store with 1."""
    from distforget.attempts import StoreError

    try:
        app()
    except UsageError as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except StoreError as error:
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)
