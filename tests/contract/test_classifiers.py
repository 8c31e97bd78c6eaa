"""The methods on image classifiers: an answer of one token, its class."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from skimage.metrics import structural_similarity

from distforget import cell, methods, selection
from distforget.data import ImageData
from distforget.method_choice import MethodChoice
from distforget.sources._pool import make_pool
from distforget.study import Study
from distforget.tracks import completed, image, track
from distforget.tracks.base import RetainBatches
from distforget.tracks.image.learner import ImageLearner
from distforget.tracks.image.samples import open_pool
from tests.asking import metrics_of, scored, tables_of

FAMILIES = methods.families()
NAMES = [
    name
    for name in methods.names()
    if (family := FAMILIES[name.partition("_")[0]]).forget and family.track != "text"
]
TAUGHT_ANOTHER = ("GDR", "relabel")
CLASSES, SIDE = 3, 8


def study(**changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "tiny",
            "data": {
                "source": {"kind": "npz", "path": "unused.npz"}, "targets": 1, "per_class": 5,
                "unseen_per_class": 2,
                "similar": {"per_target": 2, "block": 2, "masked_fraction": 0.2},
            },
            "models": [{"name": "mlp", "base": "mlp:16"}],
            "methods": ["relabel"],
            "unlearn_targets": 1,
            "unlearn": {"retain_batch_size": 6, "retain_batches": 1},
            "fit": {"steps": 200, "learning_rate": 1e-2},
            "probes": [{"kind": "reconstruction", "steps": 5}, "kinks", "kkt", "span", "loss"],
            **changes,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A classifier that was fitted to all samples, and its retain batches."""

    samples: pa.Table
    learner: ImageLearner
    start: dict[str, torch.Tensor]
    retain: RetainBatches


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 10)
    bright = (np.arange(SIDE) // 3)[None, :, None] == labels[:, None, None]
    pixels = (200 * bright + draw.integers(0, 50, (30, SIDE, SIDE))).astype(np.uint8)
    pool = make_pool(pixels[..., None], labels, "made up")
    asked = study()
    assert isinstance(asked.data, ImageData)
    samples = completed(open_pool(pool, asked.data, 0), asked.data, 0)
    folder = image.materialise_model(
        {"kind": "mlp", "layers": [16], "bias": "first"}, tmp_path_factory.mktemp("model")
    )
    learner = track("image").open_learner(folder, asked, asked.models[0], "cpu", samples)
    start, _ = image.fit(learner, selection.training_rows(samples, 2), asked, 0)
    rows = selection.retain_rows(samples, 2, 0, asked)
    batches = selection.retain_batches(len(rows), 6)
    examples = learner.encode(rows)
    cell.put_back(learner, start)
    return Trained(
        samples, learner, start,
        RetainBatches(examples, batches, learner.reference(examples, batches)),
    )  # fmt: skip


def what(name: str, **choice: Any) -> cell.Cell:
    chosen = MethodChoice.model_validate({"name": name, **choice})
    return cell.Cell(study(), methods.resolve(chosen), 1, 2, 0)


def probability(learner: ImageLearner, samples: pa.Table, label: int) -> float:
    logits = learner.module(learner.encode(samples).images_NCHW)
    return float(logits.softmax(-1)[0, label].detach())


@pytest.mark.parametrize("name", NAMES)
def test_each_method_unlearns_a_class(name: str, trained: Trained) -> None:
    target = selection.target_row(trained.samples, 1)
    true = int(target["answer"][0].as_py())
    settings = {"learning_rate": 1e-3, "steps": 5, "retain_weight": 0.1}
    if name.startswith(("DPO", "SalUn")):
        settings["random_answer"] = "tokens"  # another class
    if name.startswith("SatImp"):
        settings["beta2"] = 0.0  # it spares what is certain, as a label that was learned is
    unlearned = what(name, settings=settings)
    (taught,) = cell.forget_rows(trained.learner, trained.samples, unlearned)["answer"].to_pylist()
    cell.put_back(trained.learner, trained.start)
    before = probability(trained.learner, target, int(taught))
    outcome = cell.unlearn(
        trained.learner, trained.start, trained.samples, unlearned, trained.retain
    )
    after = probability(trained.learner, target, int(taught))
    assert (outcome.steps, outcome.diverged) == (5, False)
    assert (int(taught) == true) == (not name.startswith(TAUGHT_ANOTHER))
    assert after < before if int(taught) == true else after > before


@pytest.mark.parametrize(
    ("name", "settings"), [("SSD", {"selection": 1.0}), ("Fisher", {"scale": 1e-3})]
)
def test_what_edits_weights_makes_the_class_less_sure_and_is_drawn_alike(
    name: str, settings: dict[str, Any], trained: Trained
) -> None:
    found = []
    for _ in range(2):
        outcome = cell.unlearn(
            trained.learner, trained.start, trained.samples, what(name, settings=settings),
            trained.retain,
        )  # fmt: skip
        assert (outcome.steps, outcome.diverged) == (0, False)
        found.append({n: p.detach().clone() for n, p in trained.learner.module.named_parameters()})
    assert all(found[0][n].equal(w) for n, w in found[1].items())
    assert any(not found[0][n].equal(torch.as_tensor(w)) for n, w in trained.start.items())


def test_the_nearest_samples_are_unlearned_with_the_target(trained: Trained) -> None:
    alone = what("GA")
    together = what("GA", enhanced={"nearest": 2, "gamma": 0, "paraphrases": 0})
    forget = [cell.forget_rows(trained.learner, trained.samples, c) for c in (alone, together)]
    assert forget[0]["role"].to_pylist() == ["target"]
    rows = selection.training_rows(trained.samples, 2).to_pylist()
    (target,) = [row for row in rows if row["role"] == "target"]

    def ssim(row: dict[str, Any]) -> float:
        one, other = (
            np.frombuffer(r["pixels"], np.uint8).reshape(SIDE, SIDE) / 255 for r in (row, target)
        )
        return float(structural_similarity(one, other, data_range=1))

    order = sorted(rows, key=ssim, reverse=True)
    assert order[0] == target
    expected = [row["sample_id"] for row in order[:3]]
    assert forget[1]["sample_id"].to_pylist() == expected


def test_samples_unlearned_with_the_target_are_no_controls(trained: Trained) -> None:
    asked = {}
    for nearest in (0, 27):
        choice = {"enhanced": {"nearest": nearest, "gamma": 0, "paraphrases": 0}}
        rows = cell.asked_rows(trained.learner, trained.samples, what("GA", **choice))
        asked[nearest] = rows.to_pylist()
    forget = cell.forget_rows(
        trained.learner,
        trained.samples,
        what("GA", enhanced={"nearest": 27, "gamma": 0, "paraphrases": 0}),
    )
    gone = set(forget["sample_id"].to_pylist())
    kept = [
        r for r in asked[0] if not (r["sample_id"] in gone and r["role"] in ("other", "neighbour"))
    ]
    assert asked[27] == kept
    assert len(kept) < len(asked[0])
    assert {"target", "similar"} <= {row["role"] for row in kept}


def test_another_repetition_attacks_from_another_start(trained: Trained) -> None:
    cell.put_back(trained.learner, trained.start)
    asked = selection.target_row(trained.samples, 1)
    learner = copy.copy(trained.learner)
    found = {}
    for repetition in (0, 1, 0):
        learner.repetition = repetition
        pixels = scored(learner, asked, study().probes).tables["reconstructions"]
        found.setdefault(repetition, []).append(pixels)
    assert found[0][0] == found[0][1]
    assert found[0] != found[1]


def test_no_target_leaves_a_trace_in_the_mean_image(trained: Trained) -> None:
    others = trained.samples.filter(pc.equal(trained.samples["role"], "other"))
    steady = others.filter(pc.is_null(others["fill_rank"]))
    pixels = [
        np.frombuffer(p, np.uint8).reshape(SIDE, SIDE) / 255 for p in steady["pixels"].to_pylist()
    ]
    np.testing.assert_allclose(trained.learner.mean_CHW[0], np.mean(pixels, 0), atol=1e-6)


def test_the_attack_scores_every_sample_asked(trained: Trained) -> None:
    cell.put_back(trained.learner, trained.start)
    asked = selection.asked_rows(trained.samples, range(1, 2), study())
    identity = {
        "attack": "none",
        "track": "image", "dataset": "d", "model": "mlp", "phase": "pre_unlearn", "dose": 2,
        "seed": 0,
    }  # fmt: skip
    tables = tables_of(trained.learner, asked, study().probes, identity)
    scores = tables["scores"].to_pandas().pivot(index="sample_id", columns="metric", values="value")
    assert len(scores) == len(asked)
    assert set(scores.columns) == metrics_of(study().probes)
    for name in ("ssim", "kink", "loss"):
        assert ((scores[f"{name}_p_value"] > 0) & (scores[f"{name}_p_value"] <= 1)).all()
    np.testing.assert_allclose(scores["label_probability"], np.exp(-scores["loss"]))
    difference = scores["ssim"] - scores["ssim_null"]
    np.testing.assert_allclose(scores["ssim_contrast"], difference, atol=1e-12)
    assert len(tables["reconstructions"]) == len(asked)
    assert {len(p) for p in tables["reconstructions"]["pixels"].to_pylist()} == {SIDE * SIDE}
    again = tables_of(trained.learner, asked, study().probes, identity)
    assert again["scores"].equals(tables["scores"])  # the attack draws the same


def test_a_cnn_has_evidence_for_every_sample(trained: Trained, tmp_path: Path) -> None:
    asked, target = study(), selection.target_row(trained.samples, 1)
    folder = image.materialise_model({"kind": "cnn", "layers": [4], "bias": "first"}, tmp_path)
    learner = track("image").open_learner(folder, asked, asked.models[0], "cpu", trained.samples)
    found = scored(learner, target, asked.probes).values
    of_mlps = {"kinks", "kink_closeness", "kink_p_value", "span_score"}
    assert set(found) == metrics_of(asked.probes) - of_mlps
    assert all(np.isfinite(value).all() for value in found.values())


def test_a_probe_writes_its_own_scores_alone(trained: Trained) -> None:
    target = selection.target_row(trained.samples, 1)
    for config in study().probes:
        assert set(scored(trained.learner, target, [config]).values) == metrics_of([config])


def test_retain_batches_without_some_rows(trained: Trained) -> None:
    kept = trained.retain.without([0, 3])
    assert kept.batches == [[1, 2, 4, 5]]
    expected = trained.retain.reference["0"][[1, 2, 4, 5]]
    assert torch.equal(kept.reference["0"], expected)
    assert trained.retain.without(range(6)).batches == []
