"""Retraining: train again from the base model without the target, the reference for all others."""

from __future__ import annotations

from distforget.frozen import Frozen
from distforget.methods.base import Method


class RetrainConfig(Frozen):
    """Settings of retrain: none, since it trains as the study's fine-tuning does."""


METHOD = Method(
    name="retrain",
    version=1,
    config=RetrainConfig,
    source="paper section 4.1 (images); here for text as well: same dose, seeds and order",
    forget=None,
    starts_from="scratch",
    is_reference=True,
)
