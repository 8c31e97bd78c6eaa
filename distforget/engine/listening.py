"""What a run tells while it goes, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from distforget.engine.states import Outcome
from distforget.plan import Step
from distforget.training import Epoch


class Listener(Protocol):
    """Receives the progress of a run."""

    def stage(self, title: str, steps: int) -> None:
        """A group of steps begins."""
        ...

    def finished(self, step: Step, outcome: Outcome) -> None:
        """A step of the group is done or failed."""
        ...

    def epoch(self, step: Step, epoch: Epoch, max_epochs: int) -> None:
        """An epoch of fine-tuning has ended."""
        ...

    def waiting(self, step: Step) -> None:
        """Another run is computing this step, and this run waits for it."""
        ...

    def told(self, text: str) -> None:
        """A step is further than before."""
        ...

    def doubt(self, text: str) -> None:
        """Something about the data may falsify the study."""
        ...


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    tables: dict[str, pa.Table]
    planned: int
    done: int
    failed: int
    computed: int
    """Steps that this run computed itself."""
    unanswered: tuple[str, ...]
    """Titles of failed floor and ceiling answers, attacks and probes."""
