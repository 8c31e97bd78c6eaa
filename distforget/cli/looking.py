"""Commands that list what there is and show results."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import StoreOption, StudyArgument, console
from distforget.errors import UsageError
from distforget.loading import load_study
from distforget.study import Study


class What(StrEnum):
    """What `list` lists."""

    methods = "methods"
    models = "models"
    sources = "sources"
    similarity = "similarity"
    probes = "probes"
    attacks = "attacks"
    presets = "presets"
    tables = "tables"


class Output(StrEnum):
    """How `query` writes."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def schema() -> None:
    """Print the JSON Schema of a study, for editors that complete and check YAML files.

    Example: `distforget schema > study.schema.json`, then begin a study with the line
    `# yaml-language-server: $schema=study.schema.json`
    """
    print(json.dumps(Study.model_json_schema(), indent=2))


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
    store: StoreOption = "results",
) -> None:
    """Print or export a table of a study.

    Example: `distforget query demo scores --where 'phase == "post_unlearn"' --output csv`
    """
    import pyarrow as pa

    from distforget.query import export as write
    from distforget.query import select
    from distforget.remote import open_store
    from distforget.report.terminal import print_table

    found: pa.Table = select(open_store(store).read_study_table(study, table), where, columns)
    if output is Output.table:
        print_table(found, console, rows)
    else:
        write(found, output.value, to, sys.stdout.buffer)


def figures(
    study: StudyArgument,
    figure: Annotated[
        str,
        typer.Option(
            help="Number in the paper, verdicts, doses-target, doses-similar, damage, leaderboard."
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="All there are, and what is missing.")
    ] = False,
    formats: Annotated[str, typer.Option("--format", help="pdf, svg, png; several: a,b.")] = "pdf",
    to: Annotated[Path | None, typer.Option(help="Folder; else beside the tables.")] = None,
    store: StoreOption = "results",
) -> None:
    """Draw the paper's figures from a study's tables.

    Writes one file per figure and model, and says which cannot be drawn and why.

    Example: `distforget figures demo --figure 12 --format png`
    """
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report import figure_numbers, figure_style, study_tables

    if bool(figure) == every:
        raise UsageError("give --figure, e.g. --figure 12, or --all")
    kinds = figure_style.formats(formats)
    place = open_store(store)
    tables = study_tables.read(make_plan(load_study(study)), place)
    folder = to or place.root / "studies" / tables.name / "figures"
    for drawn in figure_numbers.draw(tables, figure):
        if drawn.figure is None:
            console.print(f"{drawn.name}: none: {escape(drawn.lacking)}")
        else:
            for path in figure_style.write(drawn.figure, folder / drawn.name, kinds):
                console.print(f"{path}", soft_wrap=True, highlight=False)


def trust(
    study: StudyArgument,
    output: Annotated[Output, typer.Option(help="How to write.")] = Output.table,
    to: Annotated[str, typer.Option(help="File to write; empty: print.")] = "",
    store: StoreOption = "results",
) -> None:
    """Measure a study's scores: which of them can tell what a model was trained on?

    Each target has models that were trained on it and models that were not, and doses between. A
    score that cannot tell them apart cannot tell whether something was forgotten.

    Example: `distforget trust demo`
    """
    import pyarrow as pa

    from distforget.plan import make_plan
    from distforget.query import export as write
    from distforget.remote import open_store
    from distforget.report.terminal import print_shown
    from distforget.report.trust import of_study, seconds_of, shown, table_of

    plan, place = make_plan(load_study(study)), open_store(store)
    scores = place.read_study_table(plan.study.name, "scores")
    found, seconds = of_study(plan, scores), seconds_of(plan, place)
    if output is Output.table:
        print_shown(shown(found, seconds), console)
    else:
        table = pa.Table.from_pandas(table_of(found, seconds), preserve_index=False)
        write(table, output.value, to, sys.stdout.buffer)


def compare(
    study_a: Annotated[str, typer.Argument(metavar="STUDY_A", help="Preset or YAML file: A.")],
    study_b: Annotated[str, typer.Argument(metavar="STUDY_B", help="Preset or YAML file: B.")],
    store: StoreOption = "results",
    store_b: Annotated[str, typer.Option(help="Where B's results are; else A's.")] = "",
    metric: Annotated[str, typer.Option(help="Score to compare; else A's verify.metric.")] = "",
    output: Annotated[Output, typer.Option(help="How to write the differences.")] = Output.table,
    to: Annotated[str, typer.Option(help="File to write; empty: print.")] = "",
) -> None:
    """Compare two studies, or one study in two stores, cell by cell.

    Prints which settings differ, field by field, which cells only one side has, and B minus A for
    each model, method, dose and role with a 95 % interval over targets; with --output the
    differences alone. Writes nothing but the file of --to.

    Example: `distforget compare demo my-demo.yaml --store results --store-b their-results`
    """
    import pyarrow as pa

    from distforget.plan import make_plan
    from distforget.query import export as write
    from distforget.remote import open_store
    from distforget.report.differences import compare, print_comparison

    if to and output is Output.table:
        raise UsageError(f"--to {to}: say how with --output: csv, json or parquet")
    a = make_plan(load_study(study_a)), open_store(store)
    b = make_plan(load_study(study_b)), open_store(store_b or store)
    found = compare(a, b, metric)
    if output is Output.table:
        print_comparison(found, console)
    else:
        table = pa.Table.from_pandas(found.scores, preserve_index=False)
        write(table, output.value, to, sys.stdout.buffer)


def export(
    study: StudyArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write: new, or empty.")],
    store: StoreOption = "results",
) -> None:
    """Export a study's tables with a data card, and its results for lm-evaluation-harness.

    Writes `FOLDER/data/*.parquet` and `FOLDER/README.md`, which `datasets.load_dataset(FOLDER,
    TABLE)` reads, and `FOLDER/results/MODEL/results_DATE.json` in lm-evaluation-harness's form.

    Example: `distforget export demo demo-data`
    """
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.export import export_study

    for path in export_study(make_plan(load_study(study)), open_store(store), folder):
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
    store: StoreOption = "results",
) -> None:
    """Write the page of a study: verdicts, charts, every answer, what ran, all tables and figures.

    Writes `STORE/studies/NAME/report/index.html`; it opens from disk, without server or network.

    Example: `distforget report demo`
    """
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.page import write_report
    from distforget.report.page.watch import watch as serve

    made = make_plan(load_study(study))
    if watch:
        serve(made, open_store(store), port, lambda said: console.print(said, soft_wrap=True))
    else:
        path = write_report(made, open_store(store))
        console.print(f"page: {path}", soft_wrap=True, highlight=False)
