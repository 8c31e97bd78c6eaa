"""Shows the progress of a run: a line for each event, and a bar if the terminal can show one."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from distforget.engine.states import Outcome
    from distforget.plan import Step
    from distforget.training import Epoch

PROBES_EVERY = 5.0
"""Seconds between two lines about probes, of which there are many short ones."""


def duration(seconds: float) -> str:
    """Seconds as people write them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Prints a line for each event (implements `engine.run.Listener`).

    Used in a `with` statement, it also shows a bar of the running stage below the lines, if the
    console is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (
            TextColumn("[bold]{task.description}[/bold]"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.began = time.monotonic()
        self.total = self.done = self.failed = 0
        self.next_probe = 0.0

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def _say(self, text: str) -> None:
        self.console.print(f"[dim]{duration(time.monotonic() - self.began):>11}[/dim]  {text}")

    def stage(self, title: str, steps: int) -> None:
        """See `Listener`."""
        self.total, self.done, self.failed = steps, 0, 0
        self.next_probe = 0.0
        self.stage_began = time.monotonic()
        for task in self.bars.task_ids:
            self.bars.remove_task(task)
        self.bars.add_task(escape(title), total=steps)
        self._say(f"[bold]{escape(title)}[/bold]: {steps} to do")

    def finished(self, step: Step, outcome: Outcome) -> None:
        """See `Listener`."""
        self.done += outcome.done
        self.failed += not outcome.done
        ended = self.done + self.failed
        for task in self.bars.task_ids:
            self.bars.update(task, completed=ended)
        left = self.total - ended
        spent = time.monotonic() - self.stage_began
        rest = f", about {duration(spent / ended * left)} left" if left else ""
        state = (
            f"{duration(outcome.seconds)}"
            if outcome.done
            else f"[red]failed[/red] {escape(outcome.error[:200])}"
        )
        failed = f", {self.failed} failed" if self.failed else ""
        if outcome.done and step.stage == "probe" and left and spent < self.next_probe:
            return
        self.next_probe = spent + PROBES_EVERY
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

    def told(self, text: str) -> None:
        """See `Listener`."""
        self._say(escape(text))

    def doubt(self, text: str) -> None:
        """See `Listener`."""
        self._say(f"[yellow]doubtful[/yellow] {escape(text)}")
