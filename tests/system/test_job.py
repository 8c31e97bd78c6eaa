"""`ray job submit` against a local head, as README says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import study_content, write_study

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head() -> Iterator[str]:
    """A Ray head of its own; stopped by its own process group, so that no other Ray is touched."""
    port, dashboard = free_port(), free_port()
    process = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", "--num-cpus=3", f"--port={port}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            "--disable-usage-stats",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "--block" in line or "Ray runtime started" in line:
            break
    yield f"http://127.0.0.1:{dashboard}"
    os.killpg(process.pid, 15)
    process.wait(60)


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
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "1 of 1 cells done" in submitted.stdout
    cells = pd.read_parquet(tmp_path / "store/studies/tiny/cells.parquet")
    assert list(cells["state"]) == ["done"]
