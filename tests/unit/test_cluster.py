"""How many cells a device takes, and how many fine-tunings a cluster."""

from __future__ import annotations

import pytest

from distforget.engine import cluster
from distforget.engine.cluster import cells_that_fit
from distforget.study import Placement

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "worker", "cells"),
    [(80, 20, 2), (80, 9, 5), (80, 2, 8), (16, 20, 1), (30, 20, 1), (2, 0, 2), (80, 0, 8)],
)
def test_a_third_of_a_gpu_is_left_for_activations(free: int, worker: int, cells: int) -> None:
    assert cells_that_fit(free * GIB, worker * GIB) == cells


@pytest.mark.parametrize(
    ("gpus", "workers", "asked", "steps", "groups"),
    [
        (8, 1, 0, 20, 8),
        (8, 4, 0, 20, 2),
        (8, 3, 0, 20, 2),
        (2, 4, 0, 20, 1),
        (8, 1, 0, 3, 3),
        (8, 1, 2, 20, 2),
        (0, 1, 0, 20, 1),
        (0, 1, 2, 20, 2),
    ],
)
def test_each_training_worker_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, gpus: int, workers: int, asked: int, steps: int, groups: int
) -> None:
    monkeypatch.setattr(cluster, "resources", lambda: {"GPU": gpus} if gpus else {})
    placement = Placement(train_workers=workers, train_groups=asked)
    assert cluster.train_groups(placement, steps) == groups
