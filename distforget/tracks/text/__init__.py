"""The text track: question-answer pairs, causal language models, greedy answers, ROUGE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distforget.data import TextData
from distforget.draws import generator_seed
from distforget.models import ModelConfig
from distforget.study import Study
from distforget.tracks.base import OpenData
from distforget.tracks.text import samples
from distforget.tracks.text.stored import StoredEvidence

if TYPE_CHECKING:
    from distforget.tracks.text.learner import TextLearner

SMALL_MODELS = False
"""Models are trained by a group of workers, not side by side in actors."""


def open_data(data: TextData, seed: int) -> OpenData:
    """See `tracks.text.samples.open_data`."""
    return samples.open_data(data, seed)


def doubts_about(study: Study, rows: pa.Table, folders: Mapping[str, Path]) -> list[str]:
    """What about a dataset may falsify the study or end it late, a line each.

    Args:
        rows: the whole dataset.
        folders: of the models by their names, as far as they are there.
    """
    from distforget.tracks.text.doubts import doubts

    files = {name: folder / "tokenizer.json" for name, folder in folders.items()}
    there = {name: file for name, file in files.items() if file.is_file()}
    return doubts(rows, there, study.finetune.max_tokens)


def stored_evidence(asked: pa.Table, answers: pa.Table, dataset: pa.Table) -> StoredEvidence:
    """What probes may ask of a state, out of the answers that it left; no model is needed.

    Args:
        asked: the samples, in the order of the answers.
    """
    return StoredEvidence(asked, answers, dataset)


def materialise_model(origin: Mapping[str, Any], folder: Path, base: Path | None = None) -> Path:
    """See `tracks.text.models.materialise`."""
    from distforget.tracks.text.models import materialise

    return materialise(origin, folder, base)


def open_learner(
    folder: Path,
    study: Study,
    model: ModelConfig,
    device: str,
    dataset: pa.Table | None = None,
    repetition: int = 0,
) -> TextLearner:
    """Load a model folder as a learner; with fresh adapters if the study asks for them.

    Args:
        dataset: not needed here; classifiers take their shape from it.
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
    return TextLearner(module, encoder, study.verify, slots, repetition)
