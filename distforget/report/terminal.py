"""Prints plans, progress and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget.attacks import name_of
from distforget.data import TextData
from distforget.report.words import after, claim_of, interval, method_name

if TYPE_CHECKING:
    import pyarrow as pa

    from distforget.analysis.verdicts import Verdict
    from distforget.engine.listening import Summary
    from distforget.engine.tune import Trial
    from distforget.plan import Plan, Step
    from distforget.report.tables import Shown
    from distforget.store import Store


def print_plan(plan: Plan, store: Store, console: Console) -> None:
    """Print the stages of a plan: all steps, those done, and those left."""
    study = plan.study
    table = Table(title=f"study {study.name}: {len(plan.cells)} cells", title_justify="left")
    for column in ("stage", "steps", "done", "left", "what"):
        table.add_column(column, justify="right" if column in ("steps", "done", "left") else "left")
    data = study.data
    completions = list(plan.dataset.inputs.values())
    stages: Sequence[tuple[str, Sequence[Step], str]] = (
        *(("completions", [step], "restatements of the targets") for step in completions),
        (
            "dataset",
            [plan.dataset],
            f"{data.source.kind}: {data.targets} targets x {data.similar.per_target} "
            f"{data.similar.kind}, "
            + (
                f"{data.others} others"
                if isinstance(data, TextData)
                else f"{data.per_class} a class"
            )
            + "".join(
                f", {own.count(config)} questions of {config.kind}"
                for config, own in study.questions
            ),
        ),
        ("model", plan.models, ", ".join(m.name for m in study.models)),
        ("finetune", plan.finetunes, f"doses {', '.join(map(str, study.dose_numbers()))}"),
        ("reference", plan.references, "retain batches under the fine-tuned models"),
        ("ask", plan.asks, "floor (pre_finetune) and ceiling (pre_unlearn) answers"),
        (
            "cell",
            plan.cells,
            f"up to {study.unlearn_targets} targets, {len(study.methods)} methods, "
            f"{len(study.models)} models, {len(study.doses)} doses, {study.seeds} seeds",
        ),
        ("attack", plan.attacks, ", ".join(map(name_of, study.attacks)) or "none"),
        ("probe", plan.probes, ", ".join(config.kind for config in study.probes)),
    )
    there = store.done(step.key for _, steps, _ in stages for step in steps)
    for name, steps, what in stages:
        done = sum(step.key in there for step in steps)
        table.add_row(name, str(len(steps)), str(done), str(len(steps) - done), what)
    console.print(table)


def print_why(step: Step, store: Store, console: Console) -> None:
    """Print whether a step is done and, if not, how it differs from the nearest result."""
    if store.is_done(step.key):
        console.print(f"{step.title} is done: {store.folder(step.key)}")
        return
    for attempt in store.attempts(step.key):
        console.print(f"attempt on {attempt.host}: {attempt.state}, {attempt.error_class}")
    nearest = store.nearest(step)
    if nearest is None:
        console.print(f"{step.title} is not done; there is no result of this stage to compare with")
        return
    key, differences = nearest
    table = Table(
        title=f"{step.title} is not done; nearest result: {key[:12]}", title_justify="left"
    )
    for name in ("field", "there", "here"):
        table.add_column(name, overflow="fold")
    for field, there, here in differences:
        table.add_row(field, str(there), str(here))
    console.print(table)


def print_verdicts(verdicts: Sequence[Verdict], metric: str, console: Console) -> None:
    """Print the verdicts on one score, one line per claim, dose, model and method."""
    if not verdicts:
        return
    margin, attack = verdicts[0].margin, verdicts[0].attack
    several = any(len(v.seed_means) > 1 for v in verdicts)
    over = (
        "targets and seeds drawn again"
        if several
        else "targets drawn again; of this one training run: with one seed it is unknown how much "
        "another run would differ"
    )
    family = (
        "all methods, models and doses of the claim"
        if verdicts[0].leading
        else "all methods, models and doses of the claim, its scores but the first and all attacks"
    )
    table = Table(
        title=f"verdicts on the score {metric}{after(attack)}",
        caption="difference: score after unlearning minus the score that the claim compares it "
        f"with; mean over targets with its 95 % interval ({over}). agree: targets with the claimed "
        "sign and, of few targets, the p-value of the exact sign-flip test. n of N: cells "
        f"compared, of those planned. supported, contradicted: significant at 5 % over {family} "
        f"(Holm), and the difference is {margin:g} or more. about 0: surely within {margin:g}. too "
        f"small: surely smaller than {margin:g} in either direction",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("claim", "dose", "model", "method", "difference [95 %]", "agree", "n of N",
                 "verdict"):  # fmt: skip
        numbers = name in ("dose", "difference [95 %]", "agree", "n of N")
        table.add_column(
            escape(name),
            justify="right" if numbers else "left",
            no_wrap=numbers or name == "verdict",
            overflow="fold",
        )
    last = None
    for v in verdicts:
        claim = None if v.experiment == last else v.experiment
        if claim:
            table.add_section()
        colour = {"supported": "green", "contradicted": "red"}.get(v.word, "yellow")
        reason = f": {v.reason}" if v.reason else ""
        table.add_row(
            claim_of(claim) if claim else "",
            str(v.dose),
            v.model,
            method_name(v.method, v.variant),
            escape(f"{v.estimate:+.2f} {interval(v.low, v.high)}"),
            f"{v.agree} of {v.targets}" + ("" if v.exact_p is None else f" (p {v.exact_p:.3f})"),
            f"{v.n} of {v.planned}",
            f"[{colour}]{v.word}[/{colour}]{reason}",
        )
        last = v.experiment
    console.print(table)


def print_shown(shown: Shown, console: Console) -> None:
    """Print one of the tables beside the verdicts."""
    table = Table(
        title=shown.title, caption=shown.caption, title_justify="left", caption_justify="left"
    )
    for place, name in enumerate(shown.columns):
        table.add_column(escape(name), justify="left" if place < shown.words else "right")
    for row in shown.rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_trials(
    trials: Sequence[Trial], on_front: Sequence[int], chosen: int, console: Console
) -> None:
    """Print one line per trial of a search, with the front of both aims first."""
    table = Table(
        title=f"{len(trials)} trials, those on the front of both aims first",
        caption="chosen: the smallest sum of both gaps; forget gap: distance of the targets from "
        "before fine-tuning; retain gap: what other samples and neighbours lost",
        title_justify="left",
        caption_justify="left",
    )
    names = [name for name, _ in trials[0].settings]
    for name in ("trial", *names, "target", "floor", "others", "ceiling", "forget gap",
                 "retain gap", ""):  # fmt: skip
        table.add_column(name, justify="right")
    for number in sorted(range(len(trials)), key=lambda number: number not in on_front):
        settings = [f"{value:.3g}" for _, value in trials[number].settings]
        aim = trials[number].aims
        numbers = [] if aim is None else [
            aim.target, aim.floor, aim.kept, aim.ceiling, aim.forget_gap, aim.retain_gap
        ]  # fmt: skip
        word = (
            "failed" if aim is None
            else "[green]chosen[/green]" if number == chosen
            else "front" if number in on_front
            else ""
        )  # fmt: skip
        shown = [f"{value:.2f}" for value in numbers] or [""] * 6
        table.add_row(str(number), *settings, *shown, word)
    console.print(table)


def print_summary(summary: Summary, console: Console) -> None:
    """Print how many cells are done or failed, and the errors of those that failed."""
    console.print(
        f"{summary.done} of {summary.planned} cells done, {summary.failed} failed or blocked; "
        f"{summary.computed} steps computed now"
    )
    skipped = [row["cell"] for row in summary.tables["cells"].to_pylist() if row["skipped_steps"]]
    if skipped:
        console.print(
            f"  [red]steps skipped[/red] in {len(skipped)} cells, whose gradient was not finite: "
            f"{escape(', '.join(skipped[:5]))}{', ...' if len(skipped) > 5 else ''}"
        )
    for title in summary.unanswered:
        console.print(
            f"  [red]missing[/red] {escape(title)}: comparisons that need it are left out"
        )
    for row in summary.tables["cells"].to_pylist():
        if row["state"] != "done":
            message = escape(f"{row['error_class']}: {row['error_message'] or ''}"[:300])
            console.print(f"  [red]{row['state']}[/red] {escape(row['cell'])}: {message}")


def print_table(table: pa.Table, console: Console, rows: int) -> None:
    """Print the first rows of a table."""
    shown = Table()
    for name in table.column_names:
        shown.add_column(name, overflow="fold")
    for row in table.slice(0, rows).to_pylist():
        shown.add_row(*(escape(_cell(value)) for value in row.values()))
    console.print(shown)
    console.print(f"{min(rows, len(table))} of {len(table)} rows")


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
