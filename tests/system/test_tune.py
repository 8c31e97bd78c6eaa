"""A search of settings on real Ray: trials are stored cells, a second search finds them all."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from distforget.loading import load_study
from distforget.method_choice import MethodChoice
from distforget.methods import resolve
from tests.conftest import study_content, write_study
from tests.running import run

TRIALS = 5


def test_a_search_tries_the_defaults_first_goes_on_and_writes_a_preset(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = write_study(tmp_path / "tiny.yaml", study_content(tiny_model, doses=["all"]))
    store, wanted = tmp_path / "store", tmp_path / "mine.yaml"
    arguments = ("tune", "NPO_GDN", "--study", str(path), "--store", str(store), "--to", wanted)

    done, again = (run(*map(str, arguments), "--trials", str(TRIALS)) for _ in range(2))
    assert done.process.returncode == 0, done.text
    assert "cells: 2 to do" in done.text  # those of the fifth trial alone
    assert again.process.returncode == 0, again.text
    assert "to do" not in again.text
    assert again.text.split(" trials, ")[-1] == done.text.split(" trials, ")[-1]

    cells = pd.read_parquet(store / "studies/tiny-tune-NPO_GDN/cells.parquet")
    assert set(cells["variant"]) == {f"trial-{i}" for i in range(TRIALS)}
    assert len(cells) == TRIALS * 2
    last = done.text[done.text.rindex(f"{TRIALS} trials") :]
    default = resolve(MethodChoice(name="NPO_GDN")).config
    settings = dict(load_study(str(wanted)).methods[0].settings)
    assert set(settings) == {"beta", "learning_rate", "retain_weight", "steps"}
    (zero,) = [line for line in last.splitlines() if re.match(r"^│\s*0 │", line)]
    assert f"{default.beta:.3g}" in zero
    assert f"{default.learning_rate:.3g}" in zero
    (chosen,) = [line for line in last.splitlines() if "chosen │" in line]
    assert f"{settings['learning_rate']:.3g}" in chosen


def test_a_study_of_several_doses_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml", study_content(tiny_model))
    refused = run("tune", "GA", "--study", str(path), "--store", str(tmp_path / "store"))
    assert refused.process.returncode == 2
    assert "searched on one model, dose and seed" in refused.text
    assert not (tmp_path / "store").exists()
