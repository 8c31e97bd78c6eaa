"""`distforget reconstruct` on a classifier's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from distforget.report.reconstructed import write_picture
from distforget.study import UsageError
from distforget.tracks.image.models import CNNConfig, MLPConfig, build, save


@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(image_shape=(1, 8, 8), classes=3, hidden=(8,)),
        CNNConfig(image_shape=(3, 8, 8), classes=3, channels=(4,)),
    ],
    ids=["mlp", "cnn"],
)
def test_the_picture_is_written(config: MLPConfig | CNNConfig, tmp_path: Path) -> None:
    save(build(config, torch.Generator().manual_seed(0)), tmp_path / "model")
    picture = tmp_path / "found.png"
    residual = write_picture(tmp_path / "model", 3, 0, "cpu", picture)
    assert 0 < residual < 2
    assert imread(picture).std() > 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["found.png"]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        write_picture(tmp_path, 3, 0, "cpu", tmp_path / "found.png")
