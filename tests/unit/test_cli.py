"""What the command line lists and refuses, without a run."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from distforget import cli, methods
from distforget.errors import UsageError
from distforget.loading import PRESETS, load_study
from distforget.probes import probes
from distforget.similarity import similarities
from distforget.sources import sources


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("methods", methods.names()),
        ("models", ["builtin:smollm2", "mlp:256,256"]),
        ("sources", list(sources())),
        ("similarity", list(similarities())),
        ("probes", list(probes())),
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


def test_studies_of_two_tracks_are_not_compared() -> None:
    result = CliRunner().invoke(cli.app, ["compare", "demo", "demo-image"])
    assert isinstance(result.exception, UsageError)
    assert "compare two of one track" in str(result.exception)


def test_a_file_of_differences_wants_a_format() -> None:
    result = CliRunner().invoke(cli.app, ["compare", "demo", "demo", "--to", "d.csv"])
    assert isinstance(result.exception, UsageError)
    assert "--output" in str(result.exception)
