"""MNIST, FashionMNIST and CIFAR10 as torchvision downloads them.

CIFAR10's own files are pickles: torchvision opens them after it has checked their MD5 sums.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks.image.sources.npz import channels_last
from distforget.tracks.image.sources.pool import Pool, make_pool


def read(config: DatasetConfig) -> Pool:
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
            f"dataset.path: {config.path} cannot be read from {root} or downloaded to it "
            f"({type(error).__name__}: {said}); fill dataset.root on a machine with a network, or "
            "use source: digits, npz or folder"
        ) from error
    images = channels_last(np.asarray(data.data), config.path)
    return make_pool(images, np.asarray(data.targets), config.path)
