"""The image track: labelled images, classifiers, data reconstruction, SSIM."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distforget.data import ImageData
from distforget.draws import generator_seed
from distforget.models import ModelConfig
from distforget.study import Study
from distforget.tracks.base import OpenData
from distforget.tracks.image import samples

if TYPE_CHECKING:
    from torch import Tensor

    from distforget.imaging.models import Classifier, CNNConfig, MLPConfig
    from distforget.tracks.image.learner import ImageLearner
    from distforget.training import Epoch

SMALL_MODELS = True
"""Models are trained side by side in actors."""

ARCHITECTURE = "architecture.json"


def open_data(data: ImageData, seed: int) -> OpenData:
    """See `tracks.image.samples.open_data`."""
    return samples.open_data(data, seed)


def materialise_model(origin: Mapping[str, Any], place: Path, base: Path | None = None) -> Path:
    """Write a classifier's architecture; its weights are drawn where it is trained."""
    (place / ARCHITECTURE).write_text(json.dumps(origin))
    return place


def doubts_about(study: Study, rows: pa.Table, folders: Mapping[str, Path]) -> list[str]:
    """No doubts, since sources give each image only once."""
    return []


def open_learner(
    place: Path,
    study: Study,
    model: ModelConfig,
    device: str,
    dataset: pa.Table,
    repetition: int = 0,
) -> ImageLearner:
    """A classifier for these samples, not trained yet, as a learner; attacks by repetition."""
    from distforget.imaging.pixels import labels_of
    from distforget.tracks.image.learner import ImageLearner

    origin = json.loads((place / ARCHITECTURE).read_text())
    first = dataset.slice(0, 1).to_pylist()[0]
    shape = (first["channels"], first["height"], first["width"])
    classes = int(labels_of(dataset).max()) + 1
    assert study.fit is not None
    return ImageLearner(
        _fresh(_config(origin, shape, classes), study, repetition, device),
        dataset,
        study.fit.weight_decay,
        study.seed,
        repetition,
    )


def fit(
    learner: ImageLearner, rows: pa.Table, study: Study, repetition: int
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a fresh model of the learner's architecture on these rows; its weights and its curve.

    Fresh weights depend on study seed and repetition alone: doses and retrained models start alike.
    """
    from distforget.imaging.fitting import Labelled
    from distforget.imaging.fitting import fit as train
    from distforget.imaging.kkt import member_multipliers
    from distforget.imaging.models import MLP
    from distforget.imaging.slopes import residual
    from distforget.training import Epoch

    assert study.fit is not None
    began = time.monotonic()
    model = _fresh(learner.module.config, study, repetition, str(learner.device))
    examples = learner.encode(rows)
    held_out = learner.encode(learner.unseen)
    labelled = Labelled(examples.images_NCHW, examples.labels_N)
    curve = train(
        model,
        labelled,
        study.fit,
        Labelled(held_out.images_NCHW, held_out.labels_N),
    )
    seconds = time.monotonic() - began
    free = None
    if isinstance(model, MLP):
        decay = study.fit.weight_decay
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
    from distforget.imaging.models import CNNConfig, MLPConfig

    layers = tuple(origin["layers"])
    if origin["kind"] == "mlp":
        return MLPConfig(image_shape=shape, classes=classes, bias=origin["bias"], hidden=layers)
    return CNNConfig(image_shape=shape, classes=classes, bias=origin["bias"], channels=layers)


def _fresh(config: MLPConfig | CNNConfig, study: Study, repetition: int, device: str) -> Classifier:
    import torch

    from distforget.imaging.models import build

    seed = generator_seed(study.seed, "fresh weights", repetition)
    model = build(config, torch.Generator().manual_seed(seed))
    return model.to(device=device, dtype=getattr(torch, study.dtype))
