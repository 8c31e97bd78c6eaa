"""Commands that plan and run studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import StoreOption, StudyArgument, console, placed
from distforget.loading import load_study
from distforget.placement import Placement
from distforget.study import Study

if TYPE_CHECKING:
    from distforget.engine.listening import Summary
    from distforget.plan import Plan
    from distforget.store import Store


@placed()
def run(
    study: StudyArgument,
    full_page: Annotated[
        bool, typer.Option(help="A page with figures and CSV files, as `report` writes it.")
    ] = False,
    *,
    placement: Placement,
) -> None:
    """Run a study. Finished steps are not computed again.

    Writes `STORE/studies/NAME/*.parquet` and a page of them, and prints the verdicts. Killed at any
    moment, the same command goes on where it was.

    Example: `distforget run demo --store results`
    """
    run_study(load_study(study), placement, full_page)


def run_study(study: Study, placement: Placement, full_page: bool) -> None:
    """Run a study, print its findings, and write its page.

    Raises:
        typer.Exit: more cells failed than are tolerated.
    """
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.findings import print_findings
    from distforget.report.terminal import print_summary

    plan, store = make_plan(study), open_store(placement.store)
    summary = run_quietly(study, placement)
    print_findings(plan, summary.tables, console)
    print_summary(summary, console)
    folder = store.root / "studies" / plan.study.name
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

        page = write_report(plan, store, brief=not full_page)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)
    store.share(folder)
    if store.place != str(store.root):
        console.print(f"all of it: {store.place}/studies/{plan.study.name}", soft_wrap=True)
    missing = summary.planned - summary.done + len(summary.unanswered)
    if missing > placement.tolerated_failures:
        raise typer.Exit(1)


def run_quietly(study: Study, placement: Placement) -> Summary:
    """Run a study and print its progress, and no findings."""
    from distforget.engine.run import run as run_plan
    from distforget.plan import make_plan
    from distforget.report.progress import Progress

    with Progress(console) as progress:
        return run_plan(make_plan(study), placement, progress)


def check_data(plan: Plan, store: Store) -> list[str]:
    """Check local data in the way that `run` checks it before computing anything.

    Returns:
        Warnings about the data, one line each.

    Raises:
        UsageError: a row is bad, or a metric cannot see its answer; names file, row and fix.
    """
    from distforget.selection import refuse_blind_probes
    from distforget.similarity import similarity_of
    from distforget.sources import source_of
    from distforget.tracks import samples_of, track

    study = plan.study
    if source_of(study.data.source).remote or similarity_of(study.data.similar).asks:
        return []
    samples = samples_of(study.data, study.seed)
    refuse_blind_probes(study, samples)
    folders = {
        step.about["model"]: store.folder(step.key)
        if store.is_done(step.key)
        else Path(step.config.get("folder", ""))
        for step in plan.models
    }
    return list(track(study.track).doubts_about(study, samples, folders))


def plan(
    study: StudyArgument,
    store: StoreOption = "results",
    why: Annotated[
        str,
        typer.Option(help="Name of a cell: print how its settings differ from the nearest result."),
    ] = "",
) -> None:
    """Print the steps of a study, what is done, and what is left; runs nothing.

    Example: `distforget plan demo --why smollm2/4/GA_GDN/1/0`
    """
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.estimate import print_estimate, print_power
    from distforget.report.terminal import print_plan, print_why

    made = make_plan(load_study(study))
    for text in check_data(made, open_store(store)):
        console.print(f"[yellow]doubtful[/yellow] {escape(text)}")
    if why:
        print_why(made.cell(why), open_store(store), console)
    else:
        print_plan(made, open_store(store), console)
        print_estimate(made, open_store(store), console)
        print_power(made, console)


def status(study: StudyArgument, store: StoreOption = "results") -> None:
    """Print the progress of a study and its verdicts so far; runs nothing.

    Example: `distforget status demo`
    """
    from distforget.engine.assemble import gather
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.findings import print_findings
    from distforget.report.terminal import print_plan

    made = make_plan(load_study(study))
    print_plan(made, open_store(store), console)
    print_findings(made, gather(made, open_store(store)), console)


@placed("store", "address", "device", "cpus", "cell_workers")
def tune(
    method: Annotated[str, typer.Argument(help="As in a study, e.g. NPO_GDN.")],
    study: Annotated[
        str, typer.Option(help="Preset or file with the targets to search on; report others.")
    ] = "settings",
    trials: Annotated[int, typer.Option(min=1, help="Settings to try.")] = 16,
    to: Annotated[
        Path | None, typer.Option(help="Preset to write; else beside the tables.")
    ] = None,
    *,
    placement: Placement,
) -> None:
    """Search for settings with which a method forgets the targets and keeps everything else.

    Prints the front of both aims and writes a preset with the settings of least sum. Killed at any
    moment, the same command goes on where it was.

    Example: `distforget tune NPO_GDN --trials 16`
    """
    from distforget.engine.tune import best, search, write_preset
    from distforget.remote import open_store
    from distforget.report.progress import Progress
    from distforget.report.terminal import print_trials

    asked = load_study(study)
    with Progress(console) as progress:
        found = search(
            asked, method, trials, placement, progress,
            lambda so_far: print_trials(so_far, *best(so_far), console),
        )  # fmt: skip
    studies = open_store(placement.store).root / "studies"
    path = to or studies / f"{asked.name}-tune-{method}" / "tuned.yaml"
    write_preset(asked, method, found[best(found)[1]], path)
    console.print(f"preset: {path}")


def doctor(store: StoreOption = "results") -> None:
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
