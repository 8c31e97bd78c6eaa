"""Asks a model of natural language inference whether one text entails another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distforget.contents import path_digests
from distforget.errors import UsageError

PAIRS_PER_BATCH = 32

Pair = tuple[str, str]


def entailment_content(path: str, field: str) -> object:
    """What identifies the model: digests of its files, or its name on the hub.

    Raises:
        UsageError: there is no such folder.
    """
    local = path.startswith((".", "/", "~")) or Path(path).is_dir()
    return path_digests(path, field) if local else path


def open_entailment(path: str, field: str) -> Callable[[Sequence[Pair]], list[float]]:
    """A function from pairs of texts to the probability that the first entails the second.

    Raises:
        UsageError: the model cannot be loaded, or knows no entailment; names the field.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        model = AutoModelForSequenceClassification.from_pretrained(path, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{field}: cannot load {path} ({type(error).__name__}); give a folder "
            "written by save_pretrained, or set HF_ENDPOINT, HF_TOKEN or HF_HOME for the hub"
        ) from error
    labels = {str(name).lower(): int(n) for n, name in model.config.id2label.items()}
    if "entailment" not in labels:
        raise UsageError(
            f"{field}: {path} has the labels {', '.join(labels)}, none is entailment; "
            "give a model that was trained on natural language inference"
        )

    def entailed(pairs: Sequence[Pair]) -> list[float]:
        chances: list[float] = []
        for start in range(0, len(pairs), PAIRS_PER_BATCH):
            batch = pairs[start : start + PAIRS_PER_BATCH]
            inputs = tokenizer(
                [first for first, _ in batch], [second for _, second in batch],
                padding=True, truncation=True, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                logits = model(**inputs).logits.float()
            chances += logits.softmax(-1)[:, labels["entailment"]].tolist()
        return chances

    return entailed
