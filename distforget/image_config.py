"""What an image study says beside what every study does: training and attack."""

from __future__ import annotations

from pydantic import Field

from distforget.frozen import Frozen

IMAGE_METRICS = (
    "ssim",
    "ssim_null",
    "ssim_contrast",
    "ssim_lookalike",
    "p_value",
    "label_probability",
)
"""Scores of a sample in a model state; `tracks.image.learner` says what they are."""


class FitConfig(Frozen):
    """Full-batch Adam with a cosine schedule to 0."""

    steps: int = Field(1500, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, gt=0, description="wd, part of the loss (not decoupled)")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    record_every: int = Field(500, ge=1, description="steps between two points of the curve")
