"""Commands that plan and run studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import (
    AddressOption,
    CellWorkersOption,
    CpusOption,
    DeviceOption,
    StoreOption,
    StudyArgument,
    console,
    placement_of,
)
from distforget.study import Study, load_study


def run(
    study: StudyArgument,
    store: StoreOption = Path("results"),
    address: AddressOption = "",
    device: DeviceOption = "auto",
    cpus: CpusOption = 0,
    train_workers: Annotated[int, typer.Option(help="Ray Train workers of a fine-tuning.")] = 1,
    train_groups: Annotated[
        int, typer.Option(help="Fine-tunings at once; 0: by GPUs, or one for each 4 cores.")
    ] = 0,
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
    cells_per_device: Annotated[
        int, typer.Option(help="Cells that share one GPU; 0: as many as its memory holds.")
    ] = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Least time between checkpoints of a fine-tuning.")
    ] = 60.0,
    retries: Annotated[int, typer.Option(help="New tries after lost workers.")] = 2,
    retry_failed: Annotated[bool, typer.Option(help="Try failed cells again.")] = False,
    tolerated_failures: Annotated[
        int, typer.Option(help="Failed cells that still exit with 0.")
    ] = 0,
    full_page: Annotated[
        bool, typer.Option(help="A page with figures and CSV files, as `report` writes it.")
    ] = False,
) -> None:
    """Run a study: what is done already is not computed again.

    Writes `STORE/studies/NAME/*.parquet` and a page of them, and prints the verdicts. Killed at any
    moment, the same command goes on where it was.

    Example: `distforget run demo --store results`
    """
    from distforget.plan import make_plan
    from distforget.report.findings import print_findings
    from distforget.report.terminal import Progress, print_summary
    from distforget.store import Store

    placement = placement_of(
        store=store,
        address=address,
        device=device,
        cpus=cpus,
        train_workers=train_workers,
        train_groups=train_groups,
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
    page = folder / "report" / "index.html"
    news = summary.computed or summary.failed or summary.unanswered
    if news or full_page or not page.exists():
        from distforget.report.page import write_report

        page = write_report(plan, Store(store), brief=not full_page)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)
    missing = summary.planned - summary.done + len(summary.unanswered)
    if missing > placement.tolerated_failures:
        raise typer.Exit(1)


def check_file(study: Study) -> None:
    """Look at a study's file as `run` does before it computes anything.

    Raises:
        UsageError: a row is bad, or a metric cannot see its answer; names file, row and fix.
    """
    from distforget.tracks import text

    text.check_metrics(study, text.read_rows(study.dataset, study.seed))


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
    if made.study.dataset.source == "file":
        check_file(made.study)
    if why:
        print_why(made.cell(why), Store(store), console)
    else:
        print_plan(made, Store(store), console)
        print_estimate(made, Store(store), console)


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

    placement = placement_of(
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
