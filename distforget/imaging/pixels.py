"""Rows of table `samples` as arrays of pixels and classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def pixels_of(samples: pa.Table) -> npt.NDArray[np.float32]:
    """The images of rows of `samples`, [N, C, H, W], 0 to 1.

    Raises:
        ValueError: there are no rows, or rows without pixels or of several sizes.
    """
    sizes = {
        tuple(row.values()) for row in samples.select(["height", "width", "channels"]).to_pylist()
    }
    if len(sizes) != 1 or None in (size := sizes.pop()):
        raise ValueError(f"images of one size are needed, {len(samples)} rows have not one")
    flat = np.frombuffer(b"".join(samples["pixels"].to_pylist()), np.uint8)
    pixels_NCHW = flat.reshape(len(samples), *size).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels_NCHW, np.float32) / np.float32(255)


def labels_of(samples: pa.Table) -> npt.NDArray[np.int64]:
    """The classes of rows of `samples`, [N], 0 to K-1."""
    return np.asarray([int(answer) for answer in samples["answer"].to_pylist()], np.int64)
