"""The image track: labelled images, classifiers, data reconstruction, SSIM."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distforget.dataset_config import DatasetConfig
from distforget.study import ModelConfig, Study, generator_seed
from distforget.tracks.image import dataset
from distforget.tracks.image.sources import digits, folder, hub_images, npz, torchvision_sets

if TYPE_CHECKING:
    from torch import Tensor

    from distforget.tracks.image.learner import ImageLearner
    from distforget.tracks.image.models import Classifier, CNNConfig, MLPConfig
    from distforget.training import Epoch

SMALL_MODELS = True
"""Models are trained side by side in actors."""

TABLES = ("reconstructions",)
"""What each model state's answers leave beside `answers` and `scores`."""

ARCHITECTURE = "architecture.json"

SOURCES = {
    "digits": digits.read,
    "torchvision": torchvision_sets.read,
    "npz": npz.read,
    "folder": folder.read,
    "hub": hub_images.read,
}


def read_rows(config: DatasetConfig, seed: int) -> pa.Table:
    """All rows: which images are drawn depends on all of them, so every source is read."""
    return dataset.build(SOURCES[config.source](config), config, seed)


def materialise_model(origin: Mapping[str, Any], place: Path) -> Path:
    """Write down a classifier's architecture; its weights are drawn where it is trained."""
    (place / ARCHITECTURE).write_text(json.dumps(origin))
    return place


def check_metrics(study: Study, samples: pa.Table) -> None:
    """Nothing to refuse: the SSIM of any image with itself is 1."""


def open_learner(
    place: Path,
    study: Study,
    model: ModelConfig,
    device: str,
    samples: pa.Table,
    repetition: int = 0,
) -> ImageLearner:
    """A classifier for these samples, not trained yet, as a learner; attacks by repetition."""
    from distforget.tracks.image.learner import ImageLearner

    origin = json.loads((place / ARCHITECTURE).read_text())
    first = samples.slice(0, 1).to_pylist()[0]
    shape = (first["channels"], first["height"], first["width"])
    classes = int(dataset.labels_of(samples).max()) + 1
    assert study.image is not None
    return ImageLearner(
        _fresh(_config(origin, shape, classes), study, repetition, device),
        samples,
        study.image,
        study.verify.metrics,
        study.seed,
        repetition,
    )


def fit(
    learner: ImageLearner, rows: pa.Table, study: Study, repetition: int
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a fresh model of the learner's architecture on these rows; its weights and its curve.

    Fresh weights depend on study seed and repetition alone: doses and retrained models start alike.
    """
    from distforget.tracks.image.fitting import Labelled
    from distforget.tracks.image.fitting import fit as train
    from distforget.tracks.image.kkt import member_multipliers
    from distforget.tracks.image.models import MLP
    from distforget.tracks.image.slopes import residual
    from distforget.training import Epoch

    assert study.image is not None
    began = time.monotonic()
    model = _fresh(learner.module.config, study, repetition, str(learner.device))
    examples = learner.encode(rows)
    held_out = learner.encode(learner.unseen)
    labelled = Labelled(examples.images_NCHW, examples.labels_N)
    curve = train(
        model,
        labelled,
        study.image.fit,
        Labelled(held_out.images_NCHW, held_out.labels_N),
    )
    seconds = time.monotonic() - began
    free = None
    if isinstance(model, MLP):
        decay = study.image.fit.weight_decay
        multipliers_N = member_multipliers(model, labelled, decay, len(rows))
        free = residual(model, labelled, multipliers_N, free=True)
    last = curve[-1].step
    history = [
        Epoch(
            epoch=point.step,
            step=point.step,
            loss=point.loss,
            token_accuracy=point.accuracy,
            exact_rate=point.accuracy,
            tokens=point.step * len(rows),
            seconds=seconds * point.step / last,
            stopped="max_epochs" if point.step == last else None,
            kkt_residual=point.kkt_residual,
            kkt_residual_free=free if point.step == last else None,
            held_out_accuracy=point.held_out_accuracy,
        )
        for point in curve
    ]
    return {name: p.detach() for name, p in model.named_parameters()}, history


def _config(
    origin: Mapping[str, Any], shape: tuple[int, int, int], classes: int
) -> MLPConfig | CNNConfig:
    from distforget.tracks.image.models import CNNConfig, MLPConfig

    layers = tuple(origin["layers"])
    if origin["kind"] == "mlp":
        return MLPConfig(image_shape=shape, classes=classes, bias=origin["bias"], hidden=layers)
    return CNNConfig(image_shape=shape, classes=classes, bias=origin["bias"], channels=layers)


def _fresh(config: MLPConfig | CNNConfig, study: Study, repetition: int, device: str) -> Classifier:
    import torch

    from distforget.tracks.image.models import build

    seed = generator_seed(study.seed, "fresh weights", repetition)
    model = build(config, torch.Generator().manual_seed(seed))
    return model.to(device=device, dtype=getattr(torch, study.dtype))
