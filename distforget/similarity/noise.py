"""Similar images by additive Gaussian noise (paper appendix A.11)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from distforget.similarity import SimilarImages, Similarity
from distforget.similarity._changed import Bytes, changed


class NoiseConfig(SimilarImages):
    """Gaussian noise is added to the target."""

    kind: Literal["noise"] = "noise"
    sigma: float = Field(0.1, gt=0, description="standard deviation, pixels being 0 to 1")


def make(families: pa.Table, config: NoiseConfig, seed: int) -> pa.Table:
    """The targets with noise in each pixel and channel."""

    def noisy(pixels_HWC: Bytes, draw: np.random.Generator) -> tuple[Bytes, None]:
        return add_noise(pixels_HWC, config.sigma, draw), None

    return changed(families, config, seed, noisy)


def add_noise(
    pixels: npt.NDArray[np.uint8], sigma: float, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The image plus N(0, sigma^2) in each pixel and channel, clipped and rounded to 8 bits.

    Args:
        pixels: of any shape, 0 to 255.
        sigma: standard deviation, in units of the 0..1 range of pixels.

    Raises:
        ValueError: sigma is negative or not a number.
    """
    if not sigma >= 0:
        raise ValueError(f"sigma is {sigma}, it must be at least 0")
    noisy = pixels / 255 + sigma * generator.standard_normal(pixels.shape)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)


SIMILARITY = Similarity(
    config=NoiseConfig,
    version=1,
    source="paper appendix A.11: Gaussian noise is added to the target",
    track="image",
    make=make,
    paper_suffix=" noise",
)
