"""The fault table: kills at each moment, one after the other on one store (`make faults`)."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.checks import Fault, Ledger, equal_to_undisturbed, finished, nothing_left_over
from tests.faults.moments import MOMENTS, Moment, Watch, watch
from tests.running import Run, Undisturbed, run, start

pytestmark = pytest.mark.faults

REPEATS = 3
ORPHANS_MAY_LIVE = 60.0


def arguments(slow: Undisturbed, store: Path) -> tuple[str, ...]:
    return ("run", str(slow.study), "--store", str(store), "--checkpoint-seconds=0")


def computed(run: Run) -> Counter[str]:
    """How often the run says of each step that it has computed it."""
    lines = re.findall(r"  (\w+ \S+): .*\(\d+/\d+", run.text)
    return Counter(lines)


def titles(watch: Watch) -> set[str]:
    """Steps that were done when the run began, as it would name them."""
    return {step.title for step in watch.plan.steps() if step.key in watch.before}


def is_agent(process: psutil.Process) -> bool:
    """Whether it is one of Ray's agents: they compute nothing and leave a minute after the rest."""
    with suppress(psutil.NoSuchProcess):
        return process.name().endswith("Agent")
    return False


def strike(watching: Watch, moment: Moment, kind: str) -> tuple[bool, float | None]:
    """Kill at a moment; whether it was exactly then, and how long orphans of the driver lived."""
    started = watching.run
    assert started.wait_for(lambda: moment.reached(watching)), f"{moment.name}: {started.text}"
    steps = [s for s in watching.plan.steps() if not watching.store.is_done(s.key)]
    in_work = [s for s in steps if watching.claimed([s])]
    family = [process for process in started.descendants() if not is_agent(process)]
    if kind == "whole group":
        started.kill_group()
    elif kind == "driver":
        started.process.kill()
    else:
        chosen = moment.worker
        assert chosen is not None
        hit = started.wait_for(
            lambda: (
                started.kill_worker(lambda process: chosen(watching, process))
                or not moment.exact(watching)
            )
        )
        return hit and moment.exact(watching), None
    exact = moment.exact(watching) and not watching.new(in_work)
    started.process.wait(30)
    if kind == "whole group":
        return exact, None
    began = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout=ORPHANS_MAY_LIVE)
    assert not alive, f"{moment.name}: {[p.cmdline() for p in alive]}"
    return exact, time.monotonic() - began


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("kind", ["driver", "whole group"])
def test_killed_at_each_moment_and_started_again(
    kind: str, repeat: int, slow: Undisturbed, tmp_path: Path, faults: list[Fault]
) -> None:
    ledger = Ledger(tmp_path, faults)
    command = arguments(slow, tmp_path)
    for moment in MOMENTS:
        watching = watch(start(*command), tmp_path, slow)
        exact, seconds = strike(watching, moment, kind)
        again = computed(watching.run) & Counter(titles(watching))
        assert not again, moment.name
        ledger.note(moment.name, kind, exact, seconds)
    last = run(*command)
    assert last.process.returncode == 0, last.text
    ledger.note("continued to the end", kind)
    equal_to_undisturbed(tmp_path, slow)
    nothing_left_over(tmp_path)


@pytest.mark.parametrize("repeat", range(REPEATS))
def test_workers_killed_at_each_moment_of_one_run(
    repeat: int, slow: Undisturbed, tmp_path: Path, faults: list[Fault]
) -> None:
    ledger = Ledger(tmp_path, faults)
    watching = watch(start(*arguments(slow, tmp_path)), tmp_path, slow)
    for moment in MOMENTS:
        if moment.worker is not None:
            exact, _ = strike(watching, moment, "worker")
            ledger.note(moment.name, "worker", exact)
    assert watching.run.finish() == 0, watching.run.text
    ledger.note("continued to the end", "worker")
    assert max(computed(watching.run).values()) == 1
    equal_to_undisturbed(tmp_path, slow)
    nothing_left_over(tmp_path)


def test_two_runs_on_one_store(slow: Undisturbed, tmp_path: Path, faults: list[Fault]) -> None:
    ledger = Ledger(tmp_path, faults)
    both = [start(*arguments(slow, tmp_path)) for _ in range(2)]
    for one in both:
        assert one.finish() == 0, one.text
    text = both[0].text + both[1].text
    assert "waiting" in text
    steps = sum(int(found) for found in re.findall(r"(\d+) steps computed now", text))
    assert steps == len(finished(tmp_path)), text
    ledger.note("from start to end", "two runs at once")
    equal_to_undisturbed(tmp_path, slow)
    nothing_left_over(tmp_path)
