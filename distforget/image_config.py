"""How classifiers of images are trained, and how training images are reconstructed from them."""

from __future__ import annotations

from pydantic import Field

from distforget.frozen import Frozen


class FitConfig(Frozen):
    """Full-batch Adam with a cosine schedule to 0."""

    steps: int = Field(1500, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, gt=0, description="wd, part of the loss (not decoupled)")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    record_every: int = Field(500, ge=1, description="steps between two points of the curve")


class ReconstructionConfig(Frozen):
    """Adam on candidates and their multipliers."""

    steps: int = Field(1000, ge=1)
    learning_rate: float = Field(0.2, gt=0, description="of both; falls to 0 on a cosine")
    start_scale: float = Field(0.15, gt=0, description="standard deviation of the first candidates")
    start_share: float = Field(0.03, gt=0, description="|G| / |theta| of the first candidates")
    sharpness_start: float = Field(10.0, gt=0, description="slope of ReLU: sigmoid(sharpness z)")
    sharpness_end: float = Field(100.0, gt=0, description="approached geometrically")
    range_weight: float = Field(1000.0, ge=0, description="prior: pixels lie between 0 and 1")
    sparse_weight: float = Field(
        0.1, ge=0, description="prior: most pixels are 0 (dark backgrounds); 0 for photographs"
    )
    sparse_width: float = Field(0.1, gt=0, description="what this prior takes for 0, in pixels")
    span: float = Field(
        0.5,
        ge=0,
        description="candidates lie in the span of so many singular vectors of the first layer, as "
        "a share of their number; 0: anywhere",
    )
    restarts: int = Field(
        1, ge=1, description="starts; the worse half is dropped after 1/4, 1/2, 3/4 of the steps"
    )
    candidates_per_sample: float = Field(
        2.0, gt=0, description="candidates by the number of training samples"
    )
