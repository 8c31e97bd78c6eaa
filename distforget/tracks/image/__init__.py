"""The image track: labelled images, classifiers, data reconstruction, SSIM."""

from __future__ import annotations

import pyarrow as pa

from distforget.dataset_config import DatasetConfig
from distforget.tracks.image import dataset
from distforget.tracks.image.sources import digits, folder, hub_images, npz, torchvision_sets

SOURCES = {
    "digits": digits.read,
    "torchvision": torchvision_sets.read,
    "npz": npz.read,
    "folder": folder.read,
    "hub": hub_images.read,
}


def read_rows(config: DatasetConfig, seed: int) -> pa.Table:
    """All rows: which images are drawn depends on all of them, so every source is read."""
    return dataset.build(SOURCES[config.source](config), config, seed)
