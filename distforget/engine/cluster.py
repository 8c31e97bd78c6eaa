"""Starts or joins a Ray cluster and decides how much of it each worker gets."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_maximum_startup_concurrency": "8",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
# Workers keep memory that they freed: large tensors come and go with each step, and fresh pages
# from the system cost about a tenth of it (SmolLM2 on two cores: 4.4 s a step became 4.0 s).
ENVIRONMENT |= {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "1",
}
os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})

import psutil  # noqa: E402
import ray  # noqa: E402 # after its settings

from distforget.errors import UsageError  # noqa: E402
from distforget.placement import Placement  # noqa: E402


@dataclass(frozen=True)
class Share:
    """What one worker gets: a device, Ray resources and threads."""

    device: str
    cpus: float
    gpus: float
    threads: int
    workers: int
    per_cell: int = 1
    """Workers that compute one cell together, each with such a share."""


def cores(placement: Placement) -> int:
    """Number of CPU cores that a local run uses."""
    return placement.cpus or len(os.sched_getaffinity(0))


def cluster_address(placement: Placement) -> str:
    """Address of the Ray cluster to join: the given one, or that of the current Ray job.

    Empty if a local cluster is to be started.
    """
    return placement.address or os.environ.get("RAY_ADDRESS", "")


@contextmanager
def connected(placement: Placement) -> Iterator[None]:
    """A Ray cluster for the duration: the one at `address`, the job's, or one of this process.

    Raises:
        UsageError: nothing answers at the address.
    """
    address = cluster_address(placement)
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "ignore_reinit_error": True,
    }
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # Restarts of actors by Ray Data print a warning each time. So they are switched off, in the one
    # way that there is, and lost workers are replaced here (`embedding.embedded`).
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    owned = not ray.is_initialized()
    if owned and address:
        try:
            ray.init(address, **quiet)
        except ConnectionError as error:
            raise UsageError(
                f"address: no Ray cluster answers at {address!r}; start one with "
                "`ray start --head` or leave --address away to run on this machine"
            ) from error
    elif owned:
        # Feeding data (Ray Data) needs a slot of its own beside the workers of each training run.
        groups = placement.train_groups or max(1, _groups_of_cores(placement))
        slots = max(cores(placement), placement.train_workers * groups) + groups
        # Ray Train asks the dashboard about its controller. Here is none: without an address that
        # refuses at once, each training run ends with 12 seconds of looking for one.
        os.environ["RAY_API_SERVER_ADDRESS"] = "http://127.0.0.1:9"
        # "local": never join a cluster that somebody else started on this machine.
        ray.init(
            "local",
            num_cpus=slots,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    _quieten()
    try:
        yield
    finally:
        if owned:
            ray.shutdown()


def _quieten() -> None:
    for name in ("ray", "ray.train", "ray.tune", "ray.data", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Tune's own files, which nobody reads; a full disk is reported once, by the store.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # its listing tasks start workers before those that read


def resources() -> dict[str, float]:
    """Resources of the cluster under Ray's names."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's gap
    return found


def uses_gpu(placement: Placement) -> bool:
    """Whether workers run on GPUs.

    Raises:
        UsageError: GPUs are asked for and there are none.
    """
    available = resources().get("GPU", 0) > 0
    if placement.device == "cuda" and not available:
        raise UsageError("device: 'cuda' is asked for, but the cluster has no GPU; use auto or cpu")
    return available and placement.device != "cpu"


def train_groups(placement: Placement, planned: int, worker_bytes: int) -> int:
    """Number of fine-tunings that run at once.

    Each of their workers has a GPU to itself or four cores: starting one takes about 20 s of a
    core. On a cluster without GPUs it has all cores of its node, so that one runs at a time.

    Args:
        worker_bytes: memory that a worker takes, before activations.
    """
    if uses_gpu(placement):
        most = int(resources()["GPU"])
    elif cluster_address(placement):
        most = 1
    else:
        held = available_memory() // max(1, 2 * worker_bytes)
        most = min(_groups_of_cores(placement), held)
    most //= placement.train_workers
    return max(1, min(placement.train_groups or most, planned))


def _groups_of_cores(placement: Placement) -> int:
    return cores(placement) // 4


def train_threads(placement: Placement, groups: int) -> int:
    """Threads of each training worker; 0 on a cluster, where each worker counts its own cores."""
    if cluster_address(placement):
        return 0
    return max(1, cores(placement) // (groups * placement.train_workers))


def available_memory() -> int:
    """Bytes of free memory, within the container's limit if there is one."""
    free: int = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def check_memory(model: str, worker_bytes: int, workers: int, free: int) -> None:
    """Whether cells (or training workers) side by side fit into `free` bytes.

    Raises:
        UsageError: they do not.
    """
    needed = worker_bytes * workers
    if needed > free:
        raise UsageError(
            f"memory: {workers} cells of {model} at once need {needed / 2**30:.1f} GiB (weights, "
            f"gradients, AdamW), {free / 2**30:.1f} GiB are free; lower --cell-workers or use a "
            "smaller model"
        )


CONTEXT_BYTES = 2**29
"""GPU memory of a process beside its tensors: CUDA's context and library workspaces."""


def cells_that_fit(free: int, worker_bytes: int) -> int:
    """Number of cells, at most 8, that share a GPU with `free` bytes.

    A third of the memory is kept for activations.
    """
    return max(1, min(8, 2 * free // (3 * (worker_bytes + CONTEXT_BYTES))))


@ray.remote(num_gpus=1, num_cpus=0)
def _measure_gpu() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0])


def _free_on_gpu() -> int:
    free: int = ray.get(_measure_gpu.remote())
    return free


def cell_share(placement: Placement, steps: int, worker_bytes: int, asking_bytes: int = 0) -> Share:
    """Resources of each worker when `steps` steps run side by side.

    Args:
        worker_bytes: memory that one of them takes on its device, before activations.
        asking_bytes: what each worker of a team takes for asking; 0: steps have a worker each.

    Raises:
        UsageError: a step needs more workers than there are.
    """
    if uses_gpu(placement):
        gpus, free = int(resources()["GPU"]), _free_on_gpu()
        per_cell = _per_cell(placement, worker_bytes, asking_bytes, 2 * free // 3)
        together = 1
        if per_cell == 1:
            together = placement.cells_per_device or cells_that_fit(free, worker_bytes)
        most = min(gpus * together, int(resources()["CPU"])) // per_cell
        gpu_share, threads = 1 / together, 4
    else:
        most = int(resources()["CPU"]) if cluster_address(placement) else cores(placement)
        per_cell = (placement.workers_per_cell or 1) if asking_bytes else 1
        most, threads, gpu_share = most // per_cell, 0, 0.0
    if not most:
        raise UsageError(
            f"workers_per_cell: a cell needs {per_cell} workers, which this cluster has no room "
            "for; lower --workers-per-cell or add nodes"
        )
    workers = max(1, min(placement.cell_workers or most, steps))
    device = "cuda" if gpu_share else "cpu"
    return Share(device, 1, gpu_share, threads or max(1, most // workers), workers, per_cell)


def _per_cell(placement: Placement, worker_bytes: int, asking_bytes: int, room: int) -> int:
    """Workers of a cell: as many as are asked for, or as a GPU's memory makes necessary."""
    if placement.workers_per_cell or not asking_bytes or placement.stepper == "torch":
        return (placement.workers_per_cell or 1) if asking_bytes else 1
    return max(1, -(-worker_bytes // max(1, room - asking_bytes))) if worker_bytes > room else 1


def object_store_bytes() -> float:
    """Bytes of this node's object store, in which the driver puts weights."""
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call] # Ray's gap
    own = next(node["Resources"] for node in nodes if node["NodeID"] == here)
    return float(own.get("object_store_memory", 0.0))
