"""The command line: parses and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget.study import Placement, UsageError, load_study

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Did the model really forget, when the training data holds samples similar to the "
    "forgotten one? Builds similarity-entailed data, fine-tunes, unlearns, asks and compares.",
)
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


@app.command()
def run(
    study: StudyArgument,
    store: StoreOption = Path("results"),
    address: AddressOption = "",
    device: DeviceOption = "auto",
    cpus: CpusOption = 0,
    train_workers: Annotated[int, typer.Option(help="Ray Train workers of a fine-tuning.")] = 1,
    stepper: Annotated[str, typer.Option(help="torch or deepspeed.")] = "torch",
    zero_stage: Annotated[int, typer.Option(help="DeepSpeed ZeRO stage: 1, 2 or 3.")] = 2,
    offload: Annotated[bool, typer.Option(help="DeepSpeed: optimiser state on the CPU.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option(help="Less memory, one more forward pass.")
    ] = False,
    cell_workers: CellWorkersOption = 0,
    cells_per_batch: Annotated[
        int, typer.Option(help="Cells of LoRA adapters that share a batch.")
    ] = 8,
    cells_per_device: Annotated[int, typer.Option(help="Cells that share one GPU.")] = 1,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Least time between checkpoints of a fine-tuning.")
    ] = 60.0,
    retries: Annotated[int, typer.Option(help="New tries after lost workers.")] = 2,
    retry_failed: Annotated[bool, typer.Option(help="Try failed cells again.")] = False,
    tolerated_failures: Annotated[
        int, typer.Option(help="Failed cells that still exit with 0.")
    ] = 0,
) -> None:
    """Run a study: what is done already is not computed again.

    Writes `STORE/studies/NAME/*.parquet` and prints the verdicts. Killed at any moment, the same
    command goes on where it was.

    Example: `distforget run demo --store results`
    """
    from distforget.plan import make_plan
    from distforget.report.findings import print_findings
    from distforget.report.terminal import Progress, print_summary

    placement = _placement(
        store=store,
        address=address,
        device=device,
        cpus=cpus,
        train_workers=train_workers,
        stepper=stepper,
        zero_stage=zero_stage,
        offload=offload,
        gradient_checkpointing=gradient_checkpointing,
        cell_workers=cell_workers,
        cells_per_batch=cells_per_batch,
        cells_per_device=cells_per_device,
        checkpoint_seconds=checkpoint_seconds,
        retries=retries,
        retry_failed=retry_failed,
        tolerated_failures=tolerated_failures,
    )
    plan = make_plan(load_study(study))
    from distforget.engine.run import run as run_plan

    summary = run_plan(plan, placement, Progress(console))
    print_findings(plan, summary.tables, console)
    print_summary(summary, console)
    folder = store / "studies" / plan.study.name
    console.print(f"tables: {folder}")
    if "reconstructions" in summary.tables:
        from distforget.report.pictures import write_pictures

        for path in write_pictures(
            summary.tables["samples"], summary.tables["reconstructions"], folder
        ):
            console.print(f"picture: {path}")
    if summary.planned - summary.done > placement.tolerated_failures:
        raise typer.Exit(1)


@app.command()
def plan(
    study: StudyArgument,
    store: StoreOption = Path("results"),
    why: Annotated[
        str, typer.Option(help="A cell: how its settings differ from the nearest result.")
    ] = "",
) -> None:
    """Print the steps of a study, what is done, and what is left; runs nothing.

    Example: `distforget plan demo --why smollm2/4/GA_GDN/1/0`
    """
    from distforget.plan import make_plan
    from distforget.report.estimate import print_estimate
    from distforget.report.terminal import print_plan, print_why
    from distforget.store import Store

    made = make_plan(load_study(study))
    if why:
        print_why(made.cell(why), Store(store), console)
    else:
        print_plan(made, Store(store), console)
        print_estimate(made, Store(store), console)


@app.command()
def status(study: StudyArgument, store: StoreOption = Path("results")) -> None:
    """Print how far a study is, and the verdicts of what is done so far; runs nothing.

    Example: `distforget status demo`
    """
    from distforget.engine.assemble import gather
    from distforget.plan import make_plan
    from distforget.report.findings import print_findings
    from distforget.report.terminal import print_plan
    from distforget.store import Store

    made = make_plan(load_study(study))
    print_plan(made, Store(store), console)
    print_findings(made, gather(made, Store(store)), console)


@app.command("list")
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


@app.command()
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


@app.command()
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


@app.command()
def ask(
    study: StudyArgument,
    cell: Annotated[str, typer.Argument(help="A done cell, as in column `cell` of table `cells`.")],
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    store: StoreOption = Path("results"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask a cell anything: the answers before fine-tuning, before and after unlearning.

    A cell with LoRA adapters is loaded; one of whole weights is unlearned again first.

    Example: `distforget ask demo smollm2/3/NPO_GDN/1/0 "When was Ada born?"`
    """
    import pyarrow as pa

    from distforget.engine.ask import ask as answers
    from distforget.plan import make_plan
    from distforget.store import Store

    named = load_study(study)
    if named.track != "text":
        raise UsageError(f"study {named.name} is of images, which cannot be asked in words")
    table = Table("phase", "answer")
    asked = pa.table({"question": [text]})
    for phase, answer in answers(make_plan(named), cell, asked, Store(store), device):
        table.add_row(phase, escape(answer))
    console.print(table)


@app.command()
def tune(
    method: Annotated[str, typer.Argument(help="As in a study, e.g. NPO_GDN.")],
    study: Annotated[
        str, typer.Option(help="Preset or file with the targets to search on; report others.")
    ] = "settings",
    trials: Annotated[int, typer.Option(min=1, help="Settings to try.")] = 16,
    to: Annotated[
        Path | None, typer.Option(help="Preset to write; else beside the tables.")
    ] = None,
    store: StoreOption = Path("results"),
    address: AddressOption = "",
    device: DeviceOption = "auto",
    cpus: CpusOption = 0,
    cell_workers: CellWorkersOption = 0,
) -> None:
    """Search a method's settings: targets as before fine-tuning, all else as before unlearning.

    Prints the front of both aims and writes a preset with the settings of least sum. Killed at any
    moment, the same command goes on where it was.

    Example: `distforget tune NPO_GDN --trials 16`
    """
    from distforget.engine.tune import best, search, write_preset
    from distforget.report.terminal import Progress, print_trials

    placement = _placement(
        store=store, address=address, device=device, cpus=cpus, cell_workers=cell_workers
    )
    asked = load_study(study)
    found = search(
        asked, method, trials, placement, Progress(console),
        lambda so_far: print_trials(so_far, *best(so_far), console),
    )  # fmt: skip
    path = to or store / "studies" / f"{asked.name}-tune-{method}" / "tuned.yaml"
    write_preset(asked, method, found[best(found)[1]], path)
    console.print(f"preset: {path}")


@app.command()
def reconstruct(
    model: Annotated[Path, typer.Argument(help="Folder with model.safetensors and config.json.")],
    samples: Annotated[int, typer.Option(min=1, help="Training samples, as far as known.")] = 100,
    to: Annotated[Path, typer.Option(help="Picture to write.")] = Path("reconstructed.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of the attack's random start.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Read training images out of your own classifier's weights: no data is needed.

    config.json looks like {"kind": "mlp", "hidden": [256, 256], "image_shape": [1, 28, 28],
    "classes": 10, "bias": "first"}; the weights are named layers.0.weight, layers.0.bias, ...
    The pictures are sorted by multiplier, the largest first.

    Example: `distforget reconstruct my-model --samples 100 --to found.png`
    """
    from distforget.image_config import ImageConfig
    from distforget.report.pictures import write_candidates
    from distforget.tracks.image.attack import attack
    from distforget.tracks.image.models import load

    found = attack(load(model).to(device), samples, ImageConfig(), seed)
    write_candidates(found.largest(100), to)
    console.print(f"relative residual of the equations {found.residual:.3f}; picture: {to}")


@app.command()
def doctor(store: StoreOption = Path("results")) -> None:
    """Check this machine: packages, devices, memory, disk, store, a small Ray cluster.

    Example: `distforget doctor`
    """
    from distforget.engine.doctor import examine

    table = Table()
    for column in ("check", "found", "fix"):
        table.add_column(column)
    sound = True
    for check in examine(store):
        sound &= check.ok
        mark = "[green]ok[/green]" if check.ok else "[red]bad[/red]"
        table.add_row(
            f"{mark} {check.name}", escape(check.found), "" if check.ok else escape(check.fix)
        )
    console.print(table)
    if not sound:
        raise typer.Exit(1)


def _placement(**values: Any) -> Placement:
    from pydantic import ValidationError

    try:
        return Placement.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {first['msg']}, not {json.dumps(first['input'])}") from error


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
