"""What README and docs/ say can be typed: studies are studies, commands run (`make readme`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distforget.loading import load_study
from tests.conftest import write_study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
]


def blocks(language: str) -> list[str]:
    """Contents of the blocks of a language; those of output are `text`."""
    return [content for name, content in BLOCKS if name == language]


def test_each_block_says_what_it_is() -> None:
    assert {name for name, _ in BLOCKS} == {"sh", "python", "yaml", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).is_file()] == []


@pytest.mark.parametrize("content", blocks("yaml"))
def test_its_studies_are_studies(content: str, tmp_path: Path) -> None:
    study = load_study(str(write_study(tmp_path / "study.yaml", yaml.safe_load(content))))
    assert study.methods


@pytest.mark.readme
@pytest.mark.parametrize("content", [*blocks("sh"), *blocks("python")])
def test_its_commands_run(content: str) -> None:
    """In the checkout itself, after `make demo`; `make test` is left to itself."""
    if content in blocks("python"):
        command = [sys.executable, "-c", content]
    else:
        command = ["bash", "-euxc", content.replace("make test", "make --dry-run test")]
    shutil.rmtree(ROOT / "exported", ignore_errors=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
