"""The other workers of a cell's team: starts them, has them compute, and sees them die."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distforget.engine.cluster import Share
from distforget.placement import Placement
from distforget.steppers import Team, TeamLostError, TorchTeam

GRACE = 30.0
"""Seconds that a team's other workers have after one failed; then they wait for it in vain."""

T = TypeVar("T")


def make_team(
    rank: int, world: int, meeting: str, device: str, placement: Placement, bf16: bool
) -> Team:
    """Join the team's process group; returns when all have."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK="0")
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=meeting,
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=10),
    )
    if placement.stepper == "torch":
        return TorchTeam(rank, world)
    from distforget.engine.deepspeed import DeepSpeedTeam

    return DeepSpeedTeam(rank, world, placement, bf16)


class Crew:
    """The workers of ranks 1, 2, ..., held by that of rank 0 in the bundles of its trial."""

    def __init__(self, helper: type, arguments: Sequence[Any], share: Share) -> None:
        """Start them; a helper is made of these arguments and its rank."""
        group = ray.util.get_current_placement_group()
        assert group is not None  # that of the trial
        self.helpers: list[Any] = [
            ray.remote(helper)
            .options(
                num_cpus=share.cpus,
                num_gpus=share.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=rank
                ),
            )
            .remote(*arguments, rank)
            for rank in range(1, share.per_cell)
        ]
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call] # Ray's gap
        with closing(socket.socket()) as free:
            free.bind((host, 0))
            self.meeting = f"tcp://{host}:{free.getsockname()[1]}"

    def all(self, own: Callable[[], T], method: str, *arguments: Any) -> list[T]:
        """What each worker's method returns, by rank; `own` is that of rank 0.

        Raises:
            TeamLostError: a worker was lost, or hangs after another one failed.
        """
        refs = [getattr(helper, method).remote(*arguments) for helper in self.helpers]
        try:
            with _watched(refs):
                mine = own()
        except Exception as error:
            # With the same error in all workers the team is sound: they go on to the next cell.
            ended, hanging = ray.wait(refs, num_returns=len(refs), timeout=GRACE)
            if hanging or any(_is_lost(ref) for ref in ended):
                raise TeamLostError(f"{type(error).__name__}: {error}") from error
            raise
        if any(_is_lost(ref) for ref in refs):
            raise TeamLostError("a worker of its team was lost")
        return [mine, *ray.get(refs)]


def _is_lost(ref: Any) -> bool:
    """Waits for a worker's result; whether the worker died instead."""
    try:
        ray.get(ref)
    except ray.exceptions.RayActorError:
        return True
    except Exception:  # its own, which `all` raises
        return False
    return False


@contextmanager
def _watched(refs: Sequence[Any]) -> Iterator[None]:
    """End this process if another worker fails while it may be waiting for that one."""
    ended = threading.Event()

    def watch() -> None:
        left = list(refs)
        while left and not ended.is_set():
            ready, left = ray.wait(left, timeout=0.5)
            for ref in ready:
                try:
                    ray.get(ref)
                except Exception as error:
                    if not ended.wait(GRACE):
                        print(f"a worker of this cell's team failed: {error}", flush=True)
                        os._exit(1)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
