"""A study on a bucket whose requests fail now and then has the rows of one in a folder."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.buckets import FAULTS, KEY_ID, SECRET, Bucket, serving
from tests.faults.checks import equal_to_undisturbed
from tests.running import Undisturbed, run, start

STORE = "s3://bucket/studies-of-mine"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving() as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield bucket


def test_killed_and_continued_on_another_machine(
    undisturbed: Undisturbed, server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    server.fault = lambda *_: draw.choice(FAULTS) if draw.random() < 0.05 else ""
    monkeypatch.setenv("DISTFORGET_CACHE", str(tmp_path / "one"))
    command = ("run", str(undisturbed.study), "--store", STORE, "--checkpoint-seconds=0")
    first = start(*command)
    assert first.until("(2/8"), first.text
    first.kill_group()

    monkeypatch.setenv("DISTFORGET_CACHE", str(tmp_path / "two"))
    second = run(*command)
    assert second.process.returncode == 0, second.text
    assert "fine-tuning: " not in second.text, second.text
    (folder,) = (tmp_path / "two").iterdir()
    equal_to_undisturbed(folder, undisturbed)

    server.fault = lambda *_: ""
    monkeypatch.setenv("DISTFORGET_CACHE", str(tmp_path / "three"))
    third = run(*command)
    assert " 0 steps computed now" in third.text, third.text
    shown = run("query", undisturbed.tables.name, "cells", "--store", STORE)
    assert shown.process.returncode == 0, shown.text
    (folder,) = (tmp_path / "three").iterdir()
    tables = folder / "studies" / undisturbed.tables.name
    assert set(pd.read_parquet(tables / "cells.parquet")["state"]) == {"done"}
    assert not list(folder.rglob("*.safetensors"))  # tables are read without weights

    texts = [first.text, second.text, third.text, shown.text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    for word in (SECRET, KEY_ID):
        assert not any(word in text for text in texts)
        assert not [path for path in files if word.encode() in path.read_bytes()]
    assert os.environ["AWS_ACCESS_KEY_ID"] == KEY_ID  # it was looked for under its right name
