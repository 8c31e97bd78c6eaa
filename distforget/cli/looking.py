"""Commands that show what there is and what came out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import StoreOption, StudyArgument, console
from distforget.study import UsageError, load_study


class What(StrEnum):
    """What `list` lists."""

    methods = "methods"
    models = "models"
    datasets = "datasets"
    presets = "presets"
    tables = "tables"


class Output(StrEnum):
    """How `query` writes."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    study: Annotated[str, typer.Argument(help="Name of a study that was run.")],
    table: Annotated[str, typer.Argument(help="Table, see `list tables`.")],
    where: Annotated[
        str, typer.Option(help="pandas filter, e.g. 'role == \"target\" and value < 0.2'.")
    ] = "",
    columns: Annotated[str, typer.Option(help="Columns, separated by commas.")] = "",
    output: Annotated[Output, typer.Option(help="How to write.")] = Output.table,
    to: Annotated[str, typer.Option(help="File to write; empty: print.")] = "",
    rows: Annotated[int, typer.Option(help="Rows to print as a table.")] = 20,
    store: StoreOption = Path("results"),
) -> None:
    """Print or export a table of a study.

    Example: `distforget query demo scores --where 'phase == "post_unlearn"' --output csv`
    """
    import pyarrow as pa

    from distforget.query import export, select
    from distforget.report.terminal import print_table
    from distforget.store import Store

    found: pa.Table = select(Store(store).read_study_table(study, table), where, columns)
    if output is Output.table:
        print_table(found, console, rows)
    else:
        export(found, output.value, to, sys.stdout.buffer)


def figures(
    study: StudyArgument,
    figure: Annotated[
        str,
        typer.Option(help="Number in the paper, verdicts, doses-target, doses-similar, damage."),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="All there are, and what is missing.")
    ] = False,
    formats: Annotated[str, typer.Option("--format", help="pdf, svg, png; several: a,b.")] = "pdf",
    to: Annotated[Path | None, typer.Option(help="Folder; else beside the tables.")] = None,
    store: StoreOption = Path("results"),
) -> None:
    """Draw the paper's figures from a study's tables, as far as it is done.

    Writes a file a figure and model, and says which cannot be drawn and why.

    Example: `distforget figures demo --figure 12 --format png`
    """
    from distforget.plan import make_plan
    from distforget.report import figure_numbers, figure_style, study_tables
    from distforget.store import Store

    if bool(figure) == every:
        raise UsageError("give --figure, e.g. --figure 12, or --all")
    kinds = figure_style.formats(formats)
    tables = study_tables.read(make_plan(load_study(study)), Store(store))
    folder = to or store / "studies" / tables.name / "figures"
    for drawn in figure_numbers.draw(tables, figure):
        if drawn.figure is None:
            console.print(f"{drawn.name}: none: {escape(drawn.lacking)}")
        else:
            for path in figure_style.write(drawn.figure, folder / drawn.name, kinds):
                console.print(f"{path}", soft_wrap=True, highlight=False)


def list_(what: Annotated[What, typer.Argument(help="What to list.")]) -> None:
    """List what there is to use.

    Example: `distforget list methods`
    """
    from distforget.report.listing import listing

    header, *rows = listing(what.value)
    listed = Table(*header)
    for row in rows:
        listed.add_row(*row)
    console.print(listed)


def report(
    study: StudyArgument,
    watch: Annotated[
        bool, typer.Option(help="Serve it on 127.0.0.1 and renew it while the study runs.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --watch; 0: a free one.")] = 0,
    store: StoreOption = Path("results"),
) -> None:
    """Write a page of a study: verdicts, charts, every answer, what ran, all tables and figures.

    Writes `STORE/studies/NAME/report/index.html`; it opens from disk, without server or network.

    Example: `distforget report demo`
    """
    from distforget.plan import make_plan
    from distforget.report.page import write_report
    from distforget.report.page.watch import watch as serve
    from distforget.store import Store

    made = make_plan(load_study(study))
    if watch:
        serve(made, Store(store), port, lambda said: console.print(said, soft_wrap=True))
    else:
        path = write_report(made, Store(store))
        console.print(f"page: {path}", soft_wrap=True, highlight=False)
