"""Judges whether a restatement still means what its original means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from distforget.finding.embedders import EmbedderConfig, Encode, open_embedder, origin
from distforget.finding.entailment import Pair, entailment_content, open_entailment
from distforget.frozen import Frozen

FIELD = "data.similar.meaning"

Meaning = Callable[[Sequence[Pair]], list[str]]
"""Says of each original and restatement why the latter does not mean the same; '' if it does."""


class MeaningConfig(Frozen):
    """Limits on how far a restatement may go from its original."""

    embedder: EmbedderConfig = EmbedderConfig()
    least: float = Field(0.6, ge=-1, le=1, description="least cosine of a text and its original")
    most: float = Field(
        1.0, ge=-1, le=1, description="largest cosine; lower it to drop those that change little"
    )
    entailment: str = Field(
        "", description="model that knows entailment, a folder or hub id; empty: cosine alone"
    )
    entails: float = Field(
        0.5, gt=0, le=1, description="least probability that each of the two entails the other"
    )

    @model_validator(mode="after")
    def _has_room(self) -> MeaningConfig:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, above most, {self.most}")
        return self


def content(config: MeaningConfig) -> dict[str, Any]:
    """What identifies the models of a configuration.

    Raises:
        UsageError: a model is not there.
    """
    return {
        "embedder": origin(config.embedder, f"{FIELD}.embedder.path"),
        "entailment": entailment_content(config.entailment, f"{FIELD}.entailment"),
    }


def open_meaning(config: MeaningConfig) -> Meaning:
    """Load the models of a configuration.

    Raises:
        UsageError: one cannot be loaded; says what to set.
    """
    encode = open_embedder(config.embedder, "cpu", f"{FIELD}.embedder.path")
    judge, field = config.entailment, f"{FIELD}.entailment"
    entailed = open_entailment(judge, field) if judge else None

    def judged(pairs: Sequence[Pair]) -> list[str]:
        reasons = [
            "meaning is lost" if cosine < config.least else "it changes too little"
            if cosine > config.most else ""
            for cosine in _cosines(encode, pairs)
        ]  # fmt: skip
        if entailed:
            left = [number for number, reason in enumerate(reasons) if not reason]
            both = [pairs[n] for n in left] + [pairs[n][::-1] for n in left]
            chances = np.asarray(entailed(both)).reshape(2, -1).min(axis=0)
            for number, chance in zip(left, chances, strict=True):
                if chance < config.entails:
                    reasons[number] = "it does not say the same (entailment)"
        return reasons

    return judged


def _cosines(encode: Encode, pairs: Sequence[Pair]) -> list[float]:
    """Cosine of the embeddings of each pair; each text is embedded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    if not texts:
        return []
    vectors = dict(zip(texts, encode(texts), strict=True))
    return [float(np.clip(vectors[old] @ vectors[new], -1, 1)) for old, new in pairs]
