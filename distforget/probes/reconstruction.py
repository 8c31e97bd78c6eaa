"""Reconstructs training images from the weights and compares them with the samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from distforget.image_config import ReconstructionConfig
from distforget.parts import Part
from distforget.probes import ImageEvidence, Metric, Probe, Scores
from distforget.probes._images import against_unseen, pixels, plain

if TYPE_CHECKING:
    from torch import Tensor

    from distforget.imaging.ssim import Matches


class ReconstructionProbeConfig(Part, ReconstructionConfig):
    """The attack on the weights, and SSIM of what it finds."""

    kind: Literal["reconstruction"] = "reconstruction"


def run(evidence: ImageEvidence, config: ReconstructionProbeConfig) -> Scores:
    """SSIM of each sample with the best reconstruction, and table `reconstructions`.

    ssim_null is the mean of what the same reconstructions reach with never-trained samples of its
    class, ssim_contrast the difference, ssim_p_value how rare as much is among those samples (see
    `nulls.against_nulls`); ssim_lookalike is what the best of the real other samples reaches.
    """
    from distforget.imaging.ssim import best_matches

    candidates_NCHW, mean_CHW = evidence.candidates(config), evidence.mean_CHW
    found = best_matches(candidates_NCHW, pixels(evidence.samples), mean_CHW)
    null_M = best_matches(candidates_NCHW, pixels(evidence.unseen), mean_CHW).ssim_M
    null_N, p_N = against_unseen(evidence, found.ssim_M, null_M)
    values = {
        "ssim": found.ssim_M,
        "ssim_null": null_N,
        "ssim_contrast": found.ssim_M - null_N,
        "ssim_p_value": p_N,
        "ssim_lookalike": evidence.lookalikes(),
    }
    pictures = _pictures(candidates_NCHW, mean_CHW, found, null_N, p_N)
    return Scores(
        {name: plain(value) for name, value in values.items()}, {"reconstructions": pictures}
    )


def _pictures(
    candidates_NCHW: Tensor, mean_CHW: Tensor, found: Matches, null_N: Tensor, p_N: Tensor
) -> list[dict[str, Any]]:
    """Rows of `reconstructions`: the best match of each sample, as 8-bit pixels."""
    rows: list[dict[str, Any]] = []
    for index, scale, ssim, null, p in zip(
        found.index_M, found.scale_M, found.ssim_M, null_N.tolist(), p_N.tolist(), strict=True
    ):
        image_CHW = mean_CHW + scale * (candidates_NCHW[index] - mean_CHW)
        pixels_HWC = (image_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        height, width, channels = pixels_HWC.shape
        rows.append(
            {
                "candidate": int(index), "ssim": float(ssim),
                "ssim_null": None if math.isnan(null) else null, "p_value": p,
                "height": height, "width": width, "channels": channels,
                "pixels": pixels_HWC.tobytes(),
            }
        )  # fmt: skip
    return rows


PROBE = Probe(
    config=ReconstructionProbeConfig,
    version=1,
    source="reconstruction from a trained network (Haim et al. 2022; paper section 5.1), by SSIM",
    track="image",
    run=run,
    metrics=(
        Metric("ssim", -1, 1, title="SSIM", tells="how alike the best reconstruction is"),
        Metric(
            "ssim_null",
            -1,
            1,
            measures_nothing=True,
            tells="what the same attack reaches with never-trained samples of the class; compare "
            "ssim with it",
        ),
        Metric("ssim_contrast", -1, 1, above_null=True, title="SSIM above the null"),
        Metric("ssim_p_value", 0, 1, measures_nothing=True),
        Metric("ssim_lookalike", -1, 1, measures_nothing=True),
    ),
    tables=("reconstructions",),
    knowledge="ssim_contrast",
)
