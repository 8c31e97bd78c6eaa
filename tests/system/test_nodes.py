"""A cluster of three nodes on this machine, one of which dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.faults.checks import equal_to_undisturbed, nothing_left_over
from tests.faults.moments import Watch, watch
from tests.running import Undisturbed, start


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def training(run: Watch) -> bool:
    return bool(run.claimed(run.plan.finetunes))


def among_cells(run: Watch) -> bool:
    return len(run.new(run.plan.cells)) > 0


@pytest.mark.parametrize("reached", [training, among_cells])
def test_a_node_that_dies_costs_no_result(
    reached: Callable[[Watch], bool], cluster: Cluster, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run = start("run", str(undisturbed.study), "--store", str(store), "--address", cluster.address)
    watched = watch(run, store, undisturbed)
    assert run.wait_for(lambda: reached(watched)), run.text
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert len(watched.new(watched.plan.cells)) < len(watched.plan.cells)
    assert run.finish() == 0, run.text
    equal_to_undisturbed(store, undisturbed)
    nothing_left_over(store)
