"""Asks models in parallel actors: floor and ceiling answers, references of retain batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from distforget.engine.cluster import Share
from distforget.engine.worker import Device, Outcome, State, Worker
from distforget.plan import Step
from distforget.store import Store
from distforget.study import Study

Group = tuple[State, Sequence[Step]]


def run_groups(
    study: Study, store: Store, groups: Sequence[Group], share: Share
) -> Iterator[Outcome]:
    """Run groups of steps that start from the same weights, `share.workers` groups at once.

    Yields outcomes as steps end. A lost actor's group comes back as `lost`.
    """
    actor: Any = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(_Actor)
    waiting = list(groups)
    device = Device(share.device, share.threads)
    idle = [actor.remote(study, store, device) for _ in range(share.workers)]
    running: dict[ray.ObjectRef[Any], tuple[Any, State, list[Step]]] = {}
    while waiting or running:
        while waiting and idle:
            handle, (state, steps) = idle.pop(), waiting.pop(0)
            running[handle.run.remote(state, steps[0])] = (handle, state, list(steps))
        (ready,), _ = ray.wait(list(running), num_returns=1)
        handle, state, steps = running.pop(ready)
        try:
            yield ray.get(ready)
        except RayActorError as error:
            for step in steps:
                yield Outcome(step.key, False, 0.0, f"worker lost: {error}", "lost")
            idle.append(actor.remote(study, store, device))
            continue
        if steps[1:]:
            running[handle.run.remote(state, steps[1])] = (handle, state, steps[1:])
        else:
            idle.append(handle)
    for handle in idle:
        ray.kill(handle)


class _Actor(Worker):
    """A worker in a process of its own."""
