"""Sends a study to a Ray cluster as a job, and follows it."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from distforget.errors import UsageError
from distforget.loading import write_study
from distforget.placement import Placement
from distforget.study import Study

STUDY_FILE = "study.yaml"


def submit(address: str, study: Study, placement: Placement, told: Callable[[str], None]) -> str:
    """Start `distforget run` on a cluster, and return the job's id.

    The study is sent along; code, packages, data and credentials are the cluster's own. A job of
    the same study and store that is under way is not started twice.

    Args:
        address: of the cluster's dashboard, e.g. http://127.0.0.1:8265.

    Raises:
        UsageError: no cluster answers there, or the store is a folder by a relative path.
    """
    if "://" not in placement.store and not Path(placement.store).is_absolute():
        raise UsageError(
            f"--store {placement.store}: the cluster has other folders; give an absolute path that "
            "all its nodes share, or a bucket (s3://BUCKET/PREFIX)"
        )
    client = _client(address)
    command = shlex.join(["distforget", "run", STUDY_FILE, *_options(placement)])
    about = f"{study.model_dump_json()} {placement.store}"
    stem = f"{study.name}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    mine = [job for job in client.list_jobs() if str(job.submission_id).startswith(f"{stem}-")]
    for job in mine:
        if not job.status.is_terminal():
            told(f"{job.submission_id} is under way already")
            return str(job.submission_id)
    with tempfile.TemporaryDirectory() as folder:
        write_study(study, Path(folder) / STUDY_FILE)
        found: str = client.submit_job(
            entrypoint=command,
            submission_id=f"{stem}-{len(mine) + 1}",
            runtime_env={"working_dir": folder},
            metadata={"study": study.name, "store": placement.store},
        )
    return found


def follow(address: str, job: str) -> Iterator[str]:
    """What a job prints, until it ends.

    Raises:
        UsageError: no cluster answers at the address.
    """
    client = _client(address)
    lines = client.tail_job_logs(job)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(anext(lines))  # type: ignore[arg-type] # an awaitable, by its name
            except StopAsyncIteration:
                return


def succeeded(address: str, job: str) -> bool:
    """Whether a job that has ended did so with 0."""
    return bool(_client(address).get_job_status(job) == JobStatus.SUCCEEDED)


def _options(placement: Placement) -> Sequence[str]:
    """The options of `run` that give this placement; in a job, Ray says which cluster it is."""
    found = []
    for name, field in Placement.model_fields.items():
        value = getattr(placement, name)
        option = "--" + name.replace("_", "-")
        if name == "store" or (value != field.default and name != "address"):
            found += [option] if value is True else [option, str(value)]
    return found


def _client(address: str) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"ADDRESS {address}: no Ray dashboard answers there; give that of the head, e.g. "
            f"http://127.0.0.1:8265, and forward its port first ({str(error).splitlines()[0]})"
        ) from error
