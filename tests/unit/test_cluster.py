"""How many cells a device takes, and how many fine-tunings a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distforget.engine import cluster
from distforget.engine.cluster import cells_that_fit
from distforget.engine.groups import deal
from distforget.placement import Placement
from distforget.plan import Step

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "worker", "cells"),
    [(80, 20, 2), (80, 9, 5), (80, 2, 8), (16, 20, 1), (30, 20, 1), (2, 0, 2), (80, 0, 8)],
)
def test_a_third_of_a_gpu_is_left_for_activations(free: int, worker: int, cells: int) -> None:
    assert cells_that_fit(free * GIB, worker * GIB) == cells


@pytest.mark.parametrize(
    ("gpus", "cores", "workers", "asked", "planned", "groups"),
    [
        (8, 16, 1, 0, 20, 8),
        (8, 16, 4, 0, 20, 2),
        (8, 16, 3, 0, 20, 2),
        (2, 16, 4, 0, 20, 1),
        (8, 16, 1, 0, 3, 3),
        (8, 16, 1, 2, 20, 2),
        (0, 2, 1, 0, 20, 1),
        (0, 2, 1, 2, 20, 2),
        (0, 16, 1, 0, 20, 4),
        (0, 16, 2, 0, 20, 2),
        (0, 64, 1, 0, 20, 10),
    ],
)
def test_as_many_fine_tunings_at_once_as_gpus_cores_and_memory_hold(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    cores: int,
    workers: int,
    asked: int,
    planned: int,
    groups: int,
) -> None:
    monkeypatch.setattr(cluster, "resources", lambda: {"GPU": gpus} if gpus else {})
    monkeypatch.setattr(cluster, "available_memory", lambda: 100 * GIB)
    placement = Placement(cpus=cores, train_workers=workers, train_groups=asked)
    found = cluster.train_groups(placement, planned, 5 * GIB)
    assert found == groups
    if not gpus:
        assert 1 <= cluster.train_threads(placement, found) * found * workers <= cores


def steps_of(costs: list[int]) -> list[Step]:
    return [Step("finetune", {"number": n}, about={"dose": c}) for n, c in enumerate(costs)]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=12), st.integers(1, 4))
def test_steps_are_dealt_to_groups_that_end_at_about_the_same_time(
    costs: list[int], groups: int
) -> None:
    steps = steps_of(costs)
    dealt = deal(steps, groups, lambda step: float(step.about["dose"]))
    assert sorted(step.key for group in dealt for step in group) == sorted(s.key for s in steps)
    assert len(dealt) == min(groups, len(steps))
    loads = [sum(step.about["dose"] for step in group) for group in dealt]
    assert max(loads) <= sum(costs) / groups + max(costs)
