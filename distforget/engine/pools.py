"""Runs steps in parallel actors: floor and ceiling answers, references, probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from distforget.engine.cluster import Share
from distforget.engine.states import Device, Outcome, State
from distforget.engine.worker import Worker
from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study

Group = tuple[Callable[[], State], Sequence[Step]]
"""Steps that start from the same weights, and what puts these into Ray's store when it is called:
only those at work lie there."""

LOST = (RayActorError, OutOfMemoryError)
"""Errors that Ray raises for a dead actor; the second if its memory monitor killed the actor."""


def run_groups(
    study: Study, store: Store, groups: Sequence[Group], share: Share
) -> Iterator[Outcome]:
    """Run groups of steps that start from the same weights, `share.workers` groups at once.

    Only actors that have started are given work, and those without work end: where there is room
    for fewer (other runs, lost nodes), fewer do all of it.

    Yields outcomes as steps end. A lost actor's group comes back as `lost`.
    """
    actor: Any = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(_Actor)
    waiting = list(groups)
    starting: dict[ray.ObjectRef[Any], Any] = {}
    running: dict[ray.ObjectRef[Any], tuple[Any, State, list[Step]]] = {}

    def start() -> None:
        handle = actor.remote(study, store, Device(share.device, share.threads))
        starting[handle.ready.remote()] = handle

    for _ in range(min(share.workers, len(waiting))):
        start()
    while waiting or running:
        (done,), _ = ray.wait([*running, *starting], num_returns=1)
        if done in running:
            handle, state, steps = running.pop(done)
        else:
            handle, steps = starting.pop(done), []
        try:
            result = ray.get(done)
        except LOST as error:
            if not steps and waiting:  # it never started: without blame there would be no end
                steps = list(waiting.pop(0)[1])
            for step in steps:
                yield Outcome(step.key, False, 0.0, f"worker lost: {error}", "lost")
            if waiting:
                start()
            continue
        if steps:
            yield result
        if steps[1:]:
            running[handle.run.remote(state, steps[1])] = (handle, state, steps[1:])
        elif waiting:
            put, (*steps,) = waiting.pop(0)
            state = put()
            running[handle.run.remote(state, steps[0])] = (handle, state, steps)
        else:
            ray.kill(handle)
    for handle in starting.values():
        ray.kill(handle)


class _Actor(Worker):
    """A worker in a process of its own."""

    def ready(self) -> None:
        """Returns once the actor has started."""
