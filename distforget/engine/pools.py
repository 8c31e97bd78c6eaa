"""Asks models in parallel actors: floor and ceiling answers, references of retain batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayActorError

from distforget.engine.cluster import Share
from distforget.engine.worker import Equipment, Outcome, Worker
from distforget.plan import Step


def run_groups(
    groups: Sequence[tuple[Equipment, Sequence[Step]]], share: Share
) -> Iterator[Outcome]:
    """Run groups of steps, one actor a group, `share.workers` at once; yields as they finish.

    A lost actor's steps come back as outcomes with `retry` set.
    """
    actor = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(_Actor)
    waiting = list(groups)
    running: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, list[Step]]] = {}
    while waiting or running:
        while waiting and len(running) < share.workers:
            equipment, steps = waiting.pop(0)
            handle = actor.remote(equipment)
            running[handle.run.remote(steps[0])] = (handle, list(steps))
        (ready,), _ = ray.wait(list(running), num_returns=1)
        handle, steps = running.pop(ready)
        try:
            yield ray.get(ready)
        except RayActorError as error:
            for step in steps:
                yield Outcome(step.key, False, 0.0, f"worker lost: {error}", retry=True)
            continue
        if steps[1:]:
            running[handle.run.remote(steps[1])] = (handle, steps[1:])
        else:
            ray.kill(handle)


class _Actor:
    def __init__(self, equipment: Equipment) -> None:
        self.worker = Worker(equipment)

    def run(self, step: Step) -> Outcome:
        return self.worker.run(step)
