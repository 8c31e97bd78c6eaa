"""What the command line lists and refuses, without a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from distforget import cli, methods
from distforget.study import PRESETS, UsageError, load_study
from distforget.tracks.image.models import CNNConfig, MLPConfig, build, save


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("methods", methods.names()),
        ("models", ["builtin:smollm2", "mlp:256,256"]),
        ("datasets", ["biographies", "digits", "npz"]),
        ("presets", [path.stem for path in PRESETS.glob("*.yaml")]),
        ("tables", ["samples", "reconstructions", "scores"]),
    ],
)
def test_everything_there_is_is_listed(what: str, words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["list", what])
    assert result.exit_code == 0, result.output
    assert [word for word in words if word not in result.output] == []


def test_an_image_study_cannot_be_asked_in_words() -> None:
    result = CliRunner().invoke(cli.app, ["ask", "demo-image", "mlp/0/retrain/1/0", "Who?"])
    assert isinstance(result.exception, UsageError)
    assert "demo-image is of images" in str(result.exception)


@pytest.mark.parametrize("preset", [path.stem for path in PRESETS.glob("*.yaml")])
def test_every_preset_is_a_study_of_its_name(preset: str) -> None:
    assert load_study(preset).name == preset


@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(image_shape=(1, 8, 8), classes=3, hidden=(8,)),
        CNNConfig(image_shape=(3, 8, 8), classes=3, channels=(4,)),
    ],
    ids=["mlp", "cnn"],
)
def test_a_classifier_of_ones_own_is_attacked(
    config: MLPConfig | CNNConfig, tmp_path: Path
) -> None:
    save(build(config, torch.Generator().manual_seed(0)), tmp_path / "model")
    picture = tmp_path / "found.png"
    arguments = ["reconstruct", str(tmp_path / "model"), "--samples", "3", "--to", str(picture)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert imread(picture).std() > 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["found.png"]


def test_a_folder_without_a_classifier_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["reconstruct", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "config.json" in str(result.exception)


def test_studies_of_two_tracks_are_not_compared() -> None:
    result = CliRunner().invoke(cli.app, ["compare", "demo", "demo-image"])
    assert isinstance(result.exception, UsageError)
    assert "compare two of one track" in str(result.exception)


def test_a_file_of_differences_wants_a_format() -> None:
    result = CliRunner().invoke(cli.app, ["compare", "demo", "demo", "--to", "d.csv"])
    assert isinstance(result.exception, UsageError)
    assert "--output" in str(result.exception)
