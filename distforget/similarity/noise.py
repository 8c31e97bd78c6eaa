"""Similar images by additive Gaussian noise (paper appendix A.11); knows no dataset."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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
