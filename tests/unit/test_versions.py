"""Code that makes results does not change unnoticed: see tests/versions.py."""

from __future__ import annotations

import json

import pytest

from distforget.plan import STAGE_VERSIONS
from tests import versions

LOCKED = {"cell": {"version": 2, "digest": "a"}, "ask": {"version": 1, "digest": "b"}}


def test_no_stage_changed_without_a_new_version_or_digest() -> None:
    locked = json.loads(versions.LOCK.read_text("utf-8"))
    found = versions.differences(locked, versions.state())
    assert not found, "\n" + "\n".join(found)


def test_every_stage_says_which_code_makes_it() -> None:
    assert versions.STAGE_FILES.keys() == STAGE_VERSIONS.keys()


def test_every_file_of_the_track_belongs_to_a_stage() -> None:
    package = versions.ROOT / "distforget"
    named = {file for stage in versions.STAGE_FILES for file in versions.files_of(stage)}
    files = set((package / "tracks").rglob("*.py"))
    only_pass_on = ("__init__.py", "base.py", "text/__init__.py")
    of_no_study = ("image/audit.py", "image/foreign.py", "image/held.py", "text/doubts.py")
    assert files - named == {package / "tracks" / name for name in (*only_pass_on, *of_no_study)}


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 1\n",
        '"""New."""\n\ndef f(x):\n    """Adds one."""\n    # why\n    return x + 1\n',
        "def f(x): return (x +\n    1)",
    ],
)
def test_comments_docstrings_and_layout_do_not_count(text: str) -> None:
    before = versions.digest({"a.py": '"""Old."""\ndef f(x):\n    return x + 1\n'})
    assert versions.digest({"a.py": text}) == before


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x + 1.0\n",
        "def f(x):\n    return x + True\n",
        "def f(x):\n    return x - 1\n",
        "def g(x):\n    return x + 1\n",
        "def f(x):\n    return x + '1'\n",
        "def f(x, y=1):\n    return x + 1\n",
    ],
)
def test_code_counts(text: str) -> None:
    assert versions.digest({"a.py": text}) != versions.digest({"a.py": "def f(x):\n return x + 1"})


def test_a_moved_file_counts() -> None:
    assert versions.digest({"a.py": "x = 1"}) != versions.digest({"b.py": "x = 1"})


def test_changed_code_must_raise_the_version_or_renew_the_digest() -> None:
    (line,) = versions.differences(LOCKED, {**LOCKED, "cell": {"version": 2, "digest": "c"}})
    assert line.startswith("cell: its code changed (distforget/steppers.py")
    assert "raise its version (plan.STAGE_VERSIONS)" in line
    assert line.endswith("run `python tests/versions.py --renew`")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({**LOCKED, "cell": {"version": 3, "digest": "c"}}, "cell: version 3, locked 2: run"),
        ({**LOCKED, "cell": {"version": 1, "digest": "a"}}, "went down from 2 to 1"),
        ({"cell": LOCKED["cell"]}, "ask is gone"),
        ({**LOCKED, "model": {"version": 1, "digest": "d"}}, "model is new"),
    ],
)
def test_every_other_difference_is_named(now: dict[str, dict[str, int | str]], said: str) -> None:
    (line,) = versions.differences(LOCKED, now)
    assert said in line


def test_nothing_is_said_when_nothing_changed() -> None:
    assert versions.differences(LOCKED, LOCKED) == []
