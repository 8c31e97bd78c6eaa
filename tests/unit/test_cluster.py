"""How many cells a device takes."""

from __future__ import annotations

import pytest

from distforget.engine.cluster import cells_that_fit

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "worker", "cells"),
    [(80, 20, 2), (80, 9, 5), (80, 2, 8), (16, 20, 1), (30, 20, 1), (2, 0, 2), (80, 0, 8)],
)
def test_a_third_of_a_gpu_is_left_for_activations(free: int, worker: int, cells: int) -> None:
    assert cells_that_fit(free * GIB, worker * GIB) == cells
