"""Makes similar images by random changes to their target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distforget.draws import rng
from distforget.similarity import SimilarImages

Bytes = npt.NDArray[np.uint8]
Change = Callable[[Bytes, np.random.Generator], tuple[Bytes, Bytes | None]]
"""From pixels [H, W, C] and a generator, changed pixels and, where there is one, a mask [H, W]."""


def changed(targets: pa.Table, config: SimilarImages, seed: int, change: Change) -> pa.Table:
    """Change each target `per_target` times; the draws depend on (seed, kind, target, rank)."""
    rows = []
    for row in targets.to_pylist():
        shape = (row["height"], row["width"], row["channels"])
        pixels_HWC = np.frombuffer(row["pixels"], np.uint8).reshape(shape)
        for rank in range(1, config.per_target + 1):
            draw = rng(seed, "images", config.kind, row["target_index"], rank)
            similar_HWC, mask_HW = change(pixels_HWC, draw)
            rows.append(
                {
                    **row,
                    "role": "similar",
                    "similar_rank": rank,
                    "pixels": similar_HWC.tobytes(),
                    "mask": None if mask_HW is None else mask_HW.tobytes(),
                }
            )
    return pa.Table.from_pylist(rows, targets.schema)
