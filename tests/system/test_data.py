"""The dataset step: the same rows in the same files, however many workers make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distforget.engine.cluster import connected
from distforget.engine.data import build_dataset, read_samples
from distforget.placement import Placement
from distforget.plan import digest, make_plan
from distforget.store import Store
from distforget.study import Study
from distforget.tracks.text.sources import biographies
from tests.conftest import study_content


def test_equal_with_1_and_4_workers(tiny_model: Path, tmp_path: Path) -> None:
    data = {"targets": 7, "similar_per_target": 5, "others": 300}
    study = Study.model_validate(study_content(tiny_model, dataset=data))
    plan = make_plan(study)
    stores = {workers: Store(tmp_path / str(workers)) for workers in (1, 4)}
    with connected(Placement(cpus=4)):
        for workers, store in stores.items():
            build_dataset(plan.dataset, study, store, workers, rows_per_shard=50)
    digests = {
        workers: [
            (path.name, digest(path))
            for path in sorted((store.folder(plan.dataset.key) / "samples").glob("*"))
        ]
        for workers, store in stores.items()
    }
    assert len(digests[1]) == 7
    assert digests[1] == digests[4]
    rows = read_samples(plan.dataset, stores[4])
    expected = biographies.rows(range(7 + 35 + 300), study.dataset, study.seed)
    assert rows.drop_columns("dataset").to_pylist() == expected.to_pylist()


def test_rows_from_a_file(tiny_model: Path, tmp_path: Path) -> None:
    lines = ["question,answer,role,target_id"]
    lines += ["Who?,Ada.,target,a", "By whom?,By Ada.,similar,a", "What?,A loom.,other,"]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    data = {
        "source": "file",
        "path": str(tmp_path / "data.csv"),
        "targets": 1,
        "similar_per_target": 1,
        "others": 1,
    }
    study = Study.model_validate(study_content(tiny_model, dataset=data, unlearn_targets=1))
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
        data = {"source": "file", "path": str(path), "targets": 1, "others": 1}
        study = study_content(
            tiny_model, dataset={**data, "similar_per_target": 0}, doses=[0], unlearn_targets=1
        )
        keys.append(make_plan(Study.model_validate(study)).dataset.key)
    assert (keys[0] == keys[1]) == bool(rows)
