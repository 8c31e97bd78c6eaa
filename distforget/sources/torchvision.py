"""MNIST, FashionMNIST and CIFAR10 as torchvision downloads them.

CIFAR10's own files are pickles: torchvision opens them after it has checked their MD5 sums.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Source
from distforget.sources._pool import Pool, channels_last, make_pool


class TorchvisionConfig(Part):
    """A set that torchvision downloads."""

    kind: Literal["torchvision"] = "torchvision"
    path: Literal["MNIST", "FashionMNIST", "CIFAR10"]
    split: Literal["train", "test"] = "train"
    root: str = Field("~/.cache/distforget", description="folder of downloads")


def read(config: TorchvisionConfig) -> Pool:
    """The images of the set `path` and split `split`, downloaded into `root` if they are not there.

    Raises:
        UsageError: they are not there and cannot be downloaded, or are damaged.
    """
    import torchvision

    root = Path(config.root).expanduser()
    kind = getattr(torchvision.datasets, config.path)
    try:
        data = kind(str(root), train=config.split == "train", download=True)
    except (OSError, RuntimeError, ValueError, EOFError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"data.source.path: {config.path} cannot be read from {root} or downloaded to it "
            f"({type(error).__name__}: {said}); fill data.source.root on a machine with a "
            "network, or use another source"
        ) from error
    images = channels_last(np.asarray(data.data), config.path)
    return make_pool(images, np.asarray(data.targets), config.path)


SOURCE = Source(
    config=TorchvisionConfig,
    version=1,
    source="MNIST, FashionMNIST or CIFAR10, downloaded by torchvision",
    track="image",
    similar="mask",
    read_images=read,
    unkeyed=("root",),
    remote=True,
    paper_name=lambda config: config.path,
)
