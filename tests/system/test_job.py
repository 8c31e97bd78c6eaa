"""`ray job submit` against a local head, as README says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.running import DISTFORGET, kill_family

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head() -> Iterator[str]:
    """A Ray head of its own; stopped with its own processes, so that no other Ray is touched."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    process = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", "--num-cpus=3", f"--port={port}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "--block" in line or "Ray runtime started" in line:
            break
    yield f"http://127.0.0.1:{dashboard}"
    kill_family(process)


def test_ray_job_submit(head: str, tiny_model: Path, tmp_path: Path) -> None:
    content = study_content(tiny_model, doses=[0], methods=["TV"], unlearn_targets=1)
    study = write_study(tmp_path / "tiny.yaml", content)
    submitted = subprocess.run(
        [
            RAY, "job", "submit", "--address", head, "--",
            sys.executable, str(ROOT / "jobs/run_study.py"), str(study),
            "--store", str(tmp_path / "store"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        env=ENVIRONMENT,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "1 of 1 cells done" in submitted.stdout
    cells = pd.read_parquet(tmp_path / "store/studies/tiny/cells.parquet")
    assert list(cells["state"]) == ["done"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=400, env=ENVIRONMENT, check=False
    )


def test_distforget_submit_goes_on_after_a_stop(
    head: str, tiny_model: Path, tmp_path: Path
) -> None:
    content = study_content(tiny_model, doses=[0], methods=["TV"], unlearn_targets=1)
    study, store = write_study(tmp_path / "tiny.yaml", content), tmp_path / "store"
    submit = (DISTFORGET, "submit", head, str(study), "--store", str(store))
    first = command(*submit, "--no-follow")
    assert first.returncode == 0, first.stdout + first.stderr
    job = first.stdout.split("job: ")[1].strip()
    again = command(*submit, "--no-follow")
    assert f"{job} is under way already" in again.stdout, again.stdout + again.stderr
    deadline = time.monotonic() + 200
    while not list(store.glob("done/*")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    stopped = command(RAY, "job", "stop", "--address", head, job)
    assert "was stopped" in stopped.stdout, stopped.stdout + stopped.stderr

    done = command(*submit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells done" in done.stdout
    assert list(pd.read_parquet(store / "studies/tiny/cells.parquet")["state"]) == ["done"]


@pytest.mark.parametrize("wrong", ["--store results", "http://127.0.0.1:9"])
def test_what_cannot_be_submitted_is_one_line(wrong: str, tmp_path: Path) -> None:
    address = wrong if wrong.startswith("http") else "http://127.0.0.1:9"
    store = "results" if "results" in wrong else str(tmp_path)
    found = command(DISTFORGET, "submit", address, "demo", "--store", store)
    assert found.returncode == 2
    assert wrong in found.stderr
    assert found.stderr.count("\n") <= 2, found.stderr
