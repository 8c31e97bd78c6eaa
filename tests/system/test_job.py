"""`ray job submit` against a local head, as README says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.running import kill_family

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}


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
