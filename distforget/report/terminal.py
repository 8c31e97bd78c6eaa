"""Prints plans, progress and verdicts; computes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget.analysis.evidence import CAPTION, shown
from distforget.dataset_config import CHOICE_ACCURACY
from distforget.study import PLACEBO

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from distforget.analysis.comparisons import Experiment
    from distforget.analysis.verdicts import Damage, Verdict
    from distforget.engine.run import Summary
    from distforget.engine.tune import Trial
    from distforget.engine.worker import Outcome
    from distforget.plan import Plan, Step
    from distforget.store import Store
    from distforget.training import Epoch


def duration(seconds: float) -> str:
    """Seconds as people write them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """A line for each thing that happens, with what is left (implements `engine.run.Listener`)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.total = self.done = self.failed = 0

    def _say(self, text: str) -> None:
        self.console.print(f"[dim]{duration(time.monotonic() - self.began):>11}[/dim]  {text}")

    def stage(self, title: str, steps: int) -> None:
        """See `Listener`."""
        self.total, self.done, self.failed = steps, 0, 0
        self.stage_began = time.monotonic()
        self._say(f"[bold]{escape(title)}[/bold]: {steps} to do")

    def finished(self, step: Step, outcome: Outcome) -> None:
        """See `Listener`."""
        self.done += outcome.done
        self.failed += not outcome.done
        ended = self.done + self.failed
        left = self.total - ended
        spent = time.monotonic() - self.stage_began
        rest = f", about {duration(spent / ended * left)} left" if left else ""
        state = (
            f"{duration(outcome.seconds)}"
            if outcome.done
            else f"[red]failed[/red] {escape(outcome.error[:200])}"
        )
        failed = f", {self.failed} failed" if self.failed else ""
        self._say(f"{escape(step.title)}: {state}  [dim]({ended}/{self.total}{failed}{rest})[/dim]")

    def epoch(self, step: Step, epoch: Epoch, max_epochs: int) -> None:
        """See `Listener`."""
        rate = epoch.tokens / epoch.seconds if epoch.seconds else 0.0
        left = epoch.seconds / epoch.epoch * (max_epochs - epoch.epoch) if epoch.epoch else 0.0
        rest = f", at most {duration(left)} left" if left and not epoch.stopped else ""
        loss = "" if epoch.loss is None else f"loss {epoch.loss:.3f}, "
        speed = f", {rate:.0f} tokens/s" if rate else ""
        stopped = f", [green]{epoch.stopped}[/green]" if epoch.stopped else rest
        skipped = f", [red]{epoch.skipped_steps} steps skipped[/red]" if epoch.skipped_steps else ""
        self._say(
            f"{escape(step.title)} epoch {epoch.epoch}: {loss}token accuracy "
            f"{epoch.token_accuracy:.3f}, exact {epoch.exact_rate:.2f}{speed}{skipped}{stopped}"
        )

    def waiting(self, step: Step) -> None:
        """See `Listener`."""
        self._say(f"{escape(step.title)}: another run is at work on it, waiting")


def print_plan(plan: Plan, store: Store, console: Console) -> None:
    """Stages of a plan: steps, done, left."""
    study = plan.study
    table = Table(title=f"study {study.name}: {len(plan.cells)} cells", title_justify="left")
    for column in ("stage", "steps", "done", "left", "what"):
        table.add_column(column, justify="right" if column in ("steps", "done", "left") else "left")
    data = study.dataset
    stages: Sequence[tuple[str, Sequence[Step], str]] = (
        (
            "dataset",
            [plan.dataset],
            f"{data.source}: {data.targets} targets x {data.similar_per_target} similar, "
            + (f"{data.per_class} a class" if data.per_class else f"{data.others} others")
            + (f", {data.utility.questions} questions of utility" if data.utility else ""),
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
    )
    there = store.done(step.key for step in plan.steps())
    for name, steps, what in stages:
        done = sum(step.key in there for step in steps)
        table.add_row(name, str(len(steps)), str(done), str(len(steps) - done), what)
    console.print(table)


def print_why(step: Step, store: Store, console: Console) -> None:
    """Whether a step is done and, if not, how its settings differ from the nearest result."""
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
    """The verdicts on one score, one line per claim, dose, model and method."""
    if not verdicts:
        return
    margin = verdicts[0].margin
    table = Table(
        title=f"verdicts on the score {metric}",
        caption="difference = score after unlearning minus what it is compared with: mean over "
        "targets, its 95 % interval (bootstrap over targets); agree = targets that go as claimed; "
        "n of N = cells compared of planned. supported or contradicted = at 5 % over all methods "
        f"and models of a claim (Holm) and by {margin:g} or more; about 0 = surely within "
        f"{margin:g}; too small = surely less than {margin:g}, either way",
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
            f"{v.agree} of {v.targets}",
            f"{v.n} of {v.planned}",
            f"[{colour}]{v.word}[/{colour}]{reason}",
        )
        last = v.experiment
    console.print(table)


def print_damage(damages: Sequence[Damage], metrics: Sequence[str], console: Console) -> None:
    """Scores of samples that should stay, one line per role, model, method and dose."""
    damage = Table(
        title="damage: samples that should stay, before -> after unlearning", title_justify="left"
    )
    wanted = [
        *metrics, "answer_probability", "answer_perplexity", "label_probability", CHOICE_ACCURACY,
    ]  # fmt: skip
    shown = [name for name in dict.fromkeys(wanted) if any(name in d.before for d in damages)]
    for name in ("samples", "model", "method", "dose", *shown, "diverged"):
        left = name in ("samples", "model", "method")
        damage.add_column(name, justify="left" if left else "right")
    for d in damages:
        damage.add_row(
            d.role, d.model, method_name(d.method, d.variant), str(d.dose),
            *(_change(d, name) for name in shown), f"{d.diverged} of {d.cells}",
        )  # fmt: skip
    console.print(damage)


def print_separation(found: pd.DataFrame, metric: str, console: Console) -> None:
    """A line a model and dose: how far the score tells trained from never-trained samples."""
    table = Table(
        title=f"control: {metric} of trained against never-trained samples, before unlearning",
        title_justify="left",
    )
    for name in ("model", "dose", "trained", "unseen", "AUC", "TPR at 1 % FPR", "n", "n unseen"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in found.itertuples():
        table.add_row(
            str(row.model), str(row.dose), f"{row.trained:.2f}", f"{row.unseen:.2f}",
            f"{row.auc:.3f}", f"{row.tpr:.2f}", str(row.n_trained), str(row.n_unseen),
        )  # fmt: skip
    console.print(table)


def print_evidence(found: pd.DataFrame, console: Console) -> None:
    """A line a model, state and dose, a column a metric."""
    table = Table(
        title="the target itself: is it gone, and is its influence gone?",
        caption=CAPTION,
        title_justify="left",
        caption_justify="left",
    )
    for name in found.columns:
        table.add_column(name, justify="left" if name in ("model", "state") else "right")
    for row in found.itertuples(index=False):
        cells = map(shown, found.columns[3:-1], row[3:-1])
        table.add_row(*map(str, row[:3]), *cells, str(row[-1]))
    console.print(table)


def print_dose_response(
    found: pd.DataFrame, slopes: pd.DataFrame, what: str, console: Console
) -> None:
    """A line a model and state, a column a dose; of placebo the band from least to largest."""
    doses = sorted(found["dose"].unique())
    table = Table(
        title=f"dose-response: {what} after unlearning, by similar samples trained on",
        caption="means over targets; placebo: the band over targets and methods when an unrelated "
        "sample is unlearned; slope: rise for each doubling of 1 + dose, mean over targets with "
        "its 95 % interval",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("model")
    table.add_column("state")
    for dose in doses:
        table.add_column(str(dose), justify="right", no_wrap=True)
    table.add_column(escape("slope [95 %]"), justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    of_states = {
        (row["model"], row["state"]): f"{row['slope']:+.3f} {interval(row['lower'], row['upper'])}"
        for row in slopes.to_dict("records")
    }
    for (model, state), rows in found.groupby(["model", "state"]):
        shown = {
            row.dose: f"{row.low:.2f}-{row.high:.2f}" if state == PLACEBO else f"{row.mean:.2f}"
            for row in rows.itertuples()
        }
        counts = sorted({str(n) for n in rows["n"]}, key=int)
        table.add_row(
            str(model),
            str(state),
            *(shown.get(dose, "") for dose in doses),
            escape(of_states.get((model, state), "")),
            "-".join(counts),
        )
    console.print(table)


def print_trials(
    trials: Sequence[Trial], on_front: Sequence[int], chosen: int, console: Console
) -> None:
    """A line a trial of a search, those on the front first."""
    table = Table(
        title=f"{len(trials)} trials; front of both aims first, chosen: least sum of both gaps",
        caption="forget gap = distance of the targets from before fine-tuning; retain gap = what "
        "other samples and neighbours lost",
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


EXPECTED = {"positive": "> 0", "negative": "< 0", "zero": "about 0"}


def claim_of(experiment: Experiment) -> str:
    """A claim in a few words, e.g. 'E4 target: dose-dose > 0'."""
    name = f"{experiment.name} " if experiment.name not in experiment.quantity else ""
    return f"{name}{experiment.role}: {experiment.quantity} {EXPECTED[experiment.expected]}"


def method_name(name: str, variant: str) -> str:
    """A method and, where it is not plain, its variant."""
    return name if variant == "plain" else f"{name}+{variant}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """'[-0.51, -0.11]'; empty where there is none."""
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]" if low == low else ""


def _change(damage: Damage, metric: str) -> str:
    if metric not in damage.before:
        return ""
    return f"{damage.before[metric]:.2f} -> {damage.after[metric]:.2f}"


def print_summary(summary: Summary, console: Console) -> None:
    """Done, failed, planned; the failed cells with their errors."""
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
            f"  [red]missing[/red] {escape(title)}: what is compared with these answers is missing"
        )
    for row in summary.tables["cells"].to_pylist():
        if row["state"] != "done":
            message = escape(f"{row['error_class']}: {row['error_message'] or ''}"[:300])
            console.print(f"  [red]{row['state']}[/red] {escape(row['cell'])}: {message}")


def print_table(table: pa.Table, console: Console, rows: int) -> None:
    """The first rows of a table."""
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
