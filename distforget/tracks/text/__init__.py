"""The text track: question-answer pairs, causal language models, greedy answers, ROUGE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distforget.dataset_config import DatasetConfig, UtilityConfig
from distforget.study import ModelConfig, Study, generator_seed
from distforget.tracks.text import guard
from distforget.tracks.text.sources import biographies, files, utility

if TYPE_CHECKING:
    from distforget.tracks.text.learner import TextLearner

SMALL_MODELS = False
"""Models are trained by a group of workers, not side by side in actors."""

TABLES = ()
"""Model states leave no tables beside `answers` and `scores`."""


def read_rows(config: DatasetConfig, seed: int) -> pa.Table | None:
    """All rows of a source that is read; None for one that makes its rows (see `make_rows`)."""
    return None if config.source == "biographies" else files.read(config)


def total_rows(config: DatasetConfig) -> int:
    """Rows of a source that makes them."""
    return biographies.total(config)


def make_rows(sample_ids: Sequence[int], config: DatasetConfig, seed: int) -> pa.Table:
    """Some rows, each a function of (sample id, config, seed) alone."""
    return biographies.rows(sample_ids, config, seed)


def check_metrics(study: Study, samples: pa.Table) -> None:
    """See `tracks.text.guard.check_metrics`."""
    guard.check_metrics(study, samples)


def utility_rows(config: UtilityConfig, seed: int, first_id: int) -> pa.Table:
    """See `tracks.text.sources.utility.read`."""
    return utility.read(config, seed, first_id)


def materialise_model(origin: Mapping[str, Any], folder: Path) -> Path:
    """See `tracks.text.models.materialise`."""
    from distforget.tracks.text.models import materialise

    return materialise(origin, folder)


def open_learner(
    folder: Path,
    study: Study,
    model: ModelConfig,
    device: str,
    samples: pa.Table | None = None,
    repetition: int = 0,
) -> TextLearner:
    """Load a model folder as a learner; with fresh adapters if the study asks for them.

    Args:
        samples: the dataset, whose answers say which words ROUGE counts; None where nothing is
            scored.
        repetition: fresh adapters are drawn anew with each.
    """
    import torch

    from distforget.tracks.text.adapters import Adapters
    from distforget.tracks.text.encoding import Encoder
    from distforget.tracks.text.learner import TextLearner
    from distforget.tracks.text.models import load_model, load_tokenizer

    encoder = Encoder(load_tokenizer(folder), model.prompt)
    module = load_model(folder, study.dtype, device)
    slots = None
    if study.adapter:
        seed = generator_seed(study.seed, "adapter", repetition)
        slots = Adapters(module, study.adapter, torch.Generator().manual_seed(seed))
    verify = study.verify if samples is None else guard.with_words(study.verify, samples)
    return TextLearner(module, encoder, verify, slots, repetition)
