"""Tiny models with adapters, one of each architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapted import ARCHITECTURES, Setting
from tests.conftest import make_tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make_tiny_model(folder / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exact(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Setting:
    return Setting(folders[request.param], "float64")


@pytest.fixture(scope="module")
def llama(folders: dict[str, Path]) -> Setting:
    return Setting(folders["llama"], "float64")
