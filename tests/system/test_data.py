"""The dataset step: the same rows, however many workers make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distforget.engine.cluster import connected
from distforget.engine.data import build_dataset, read_samples
from distforget.errors import UsageError
from distforget.placement import Placement
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import samples_of
from tests.conftest import study_content


def test_equal_with_1_and_4_workers(tiny_model: Path, tmp_path: Path) -> None:
    data = {"targets": 7, "others": 300, "similar": {"per_target": 5, "paraphrases": 2}}
    study = Study.model_validate(study_content(tiny_model, data=data))
    plan = make_plan(study)
    stores = {workers: Store(tmp_path / str(workers)) for workers in (1, 4)}
    with connected(Placement(cpus=4)):
        for workers, store in stores.items():
            build_dataset(plan.dataset, study, store, workers, rows_per_shard=50)
    expected = samples_of(study.data, study.seed).to_pylist()
    assert len(expected) == 7 + 7 * 7 + 300
    for store in stores.values():
        rows = read_samples(plan.dataset, store)
        assert rows.drop_columns("dataset").to_pylist() == expected


def test_a_similarity_that_fails_says_why(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "Who?", "answer": "Ada."}\n')
    data = {
        "source": {"kind": "file", "path": str(path)},
        "targets": 1,
        "others": 0,
        "similar": {"per_target": 2},
    }
    content = study_content(tiny_model, data=data, unlearn_targets=1, doses=["all"])
    study = Study.model_validate(content)
    with (
        connected(Placement(cpus=1)),
        pytest.raises(UsageError, match=r"data\.jsonl: line 1: this target has 0 rows .* for 2"),
    ):
        build_dataset(make_plan(study).dataset, study, Store(tmp_path / "store"))


def test_rows_from_a_file(tiny_model: Path, tmp_path: Path) -> None:
    lines = ["question,answer,role,target_id"]
    lines += ["Who?,Ada.,target,a", "By whom?,By Ada.,similar,a", "What?,A loom.,other,"]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    data = {
        "source": {"kind": "file", "path": str(tmp_path / "data.csv")},
        "targets": 1,
        "others": 1,
        "similar": {"per_target": 1},
    }
    study = Study.model_validate(study_content(tiny_model, data=data, unlearn_targets=1))
    plan = make_plan(study)
    store = Store(tmp_path / "store")
    with connected(Placement(cpus=1)):
        build_dataset(plan.dataset, study, store)
    rows = read_samples(plan.dataset, store).to_pylist()
    assert [row["role"] for row in rows] == ["target", "similar", "other"]
    assert [row["answer"] for row in rows] == ["Ada.", "By Ada.", "A loom."]


@pytest.mark.parametrize("rows", [0, 1])
def test_the_key_follows_the_files_content(rows: int, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    keys = []
    for answer in ("Ada.", "Ada." if rows else "Grace."):
        path.write_text(f'{{"question": "Who?", "answer": "{answer}"}}\n')
        data = {"source": {"kind": "file", "path": str(path)}, "targets": 1, "others": 1}
        study = study_content(
            tiny_model, data={**data, "similar": {"per_target": 0}}, doses=[0], unlearn_targets=1
        )
        keys.append(make_plan(Study.model_validate(study)).dataset.key)
    assert (keys[0] == keys[1]) == bool(rows)
