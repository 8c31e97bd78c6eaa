"""A part is one file: nothing else in the package knows it by its name."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from distforget.attacks import attacks
from distforget.methods import families
from distforget.probes import probes
from distforget.similarity import similarities
from distforget.sources import sources

PACKAGE = Path(__file__).parents[2] / "distforget"
FOLDERS = {
    "sources": sources(),
    "similarity": similarities(),
    "probes": probes(),
    "attacks": attacks(),
    "methods": families(),
}
PARTS = [(folder, kind) for folder, parts in FOLDERS.items() for kind in parts]

MORE_THAN_A_PART = {
    "biographies": "what draws of people and restatements are about",
    "torchvision": "a package that `doctor` looks for",
    "choices": "a column of `samples`",
    "entailment": "a label of models",
    "facts": "a column of `samples`",
    "kinks": "a score",
    "loss": "a score, and a column of `training`",
    "mask": "a column of `samples`",
    "file": "of a model's package",
    "hub": "a model's origin",
    "folder": "a model's origin",
    "paraphrase": "a role of samples",
    "noise": "what draws of enhanced unlearning are about",
}
"""Kinds that are words of other things, too, and which."""


def names_of(source: str) -> set[str]:
    """All whole strings of a file that are no docstrings."""
    tree = ast.parse(source)
    texts = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    return {
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
    }  # fmt: skip


@pytest.mark.parametrize(("folder", "kind"), PARTS)
def test_a_part_is_named_in_its_own_file_alone(folder: str, kind: str) -> None:
    part: Any = FOLDERS[folder][kind]
    own = Path(str(sys.modules[part.config.__module__].__file__))
    assert kind in names_of(own.read_text("utf-8"))
    files = [path for path in PACKAGE.rglob("*.py") if kind in names_of(path.read_text("utf-8"))]
    default = [f for f in files if f.parent == PACKAGE / "sources" and folder == "similarity"]
    strange = [f for f in files if f != own and f not in default]
    assert not strange or kind in MORE_THAN_A_PART, f"{kind!r} is named in {strange}"


EXAMPLES = dict(
    re.findall(
        r"Write `(distforget/\S+\.py)`.*?```python\n(.*?)```",
        (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8"),
        re.DOTALL,
    )
)
"""The parts that CONTRIBUTING shows how to add, by their places."""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more file of each kind."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, root / "distforget", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "data_schemas", root / "distforget/data_schemas")
    for place, code in EXAMPLES.items():
        (root / place).write_text(code)
    return root


def python(root: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_contributing_shows_one_file_of_each_kind() -> None:
    assert {Path(place).parent.name for place in EXAMPLES} == set(FOLDERS)


USES = {
    "methods": """
        from distforget.methods import names
        from distforget.plan import make_plan
        study = Study.model_validate({**base, "methods": ["ME_GDN"]})
        assert {step.config["family"] for step in make_plan(study).cells} == {"ME"}
        """,
    "attacks": """
        import torch
        from types import SimpleNamespace
        study = Study.model_validate({**base, "attacks": [{"kind": "jitter", "percent": 50}]})
        layer = torch.nn.Linear(400, 300)
        weight = layer.weight.detach().clone()
        state = SimpleNamespace(module=torch.nn.Sequential(layer))
        attack_of(study.attacks[0]).run(state, study.attacks[0])
        ratio = (layer.weight - weight).std() / weight.std()
        assert 0.49 < float(ratio) < 0.51
        assert name_of(study.attacks[0]) == "jitter-50"
        """,
    "probes": """
        from types import SimpleNamespace
        study = Study.model_validate({**base, "probes": ["rouge", "length"]})
        assert "answer_length" in study.metrics
        evidence = SimpleNamespace(answer_sizes=lambda: [3, 1])
        found = probe_of(study.probes[1]).run(evidence, study.probes[1])
        assert found.values["answer_length"].tolist() == [3.0, 1.0]
        """,
    "sources": """
        import sqlite3
        with sqlite3.connect("made.db") as database:
            database.execute("CREATE TABLE samples (question, answer, role)")
            rows = [("Who?", "Ann.", "target"), ("Where?", "Rome.", "other")]
            database.executemany("INSERT INTO samples VALUES (?, ?, ?)", rows)
        source = {"kind": "sqlite", "path": "made.db"}
        similar = {"kind": "given", "per_target": 0}
        data = TextData.model_validate(
            {"source": source, "similar": similar, "targets": 1, "others": 1}
        )
        assert samples_of(data, 0)["answer"].to_pylist() == ["Ann.", "Rome."]
        assert key_of_data(data)["source"]["content"] and "path" not in key_of_data(data)["source"]
        """,
    "similarity": """
        similar = {"kind": "quoted", "per_target": 2, "speakers": ["Bo"]}
        data = TextData.model_validate({"similar": similar, "targets": 1, "others": 0})
        target, *quoted = samples_of(data, 0)["answer"].to_pylist()
        assert quoted == [f"Bo said: {target}"] * 2
        assert key_of_data(data)["similar"]["speakers"] == ["Bo"]
        """,
}
"""How each kind is used once its file is there; nothing else was told of it."""


@pytest.mark.parametrize("folder", USES)
def test_a_file_is_all_that_a_part_needs(folder: str, extended: Path) -> None:
    listed = """
        from distforget.attacks import attack_of, name_of
        from distforget.data import TextData, key_of_data
        from distforget.probes import probe_of
        from distforget.report.listing import listing
        from distforget.study import Study
        from distforget.tracks import samples_of
        base = {"name": "s", "models": [{"name": "m", "base": "a/b"}], "methods": ["GA"]}
        print([row[0] for row in listing(FOLDER)])
        """
    code = textwrap.dedent(listed).replace("FOLDER", repr(folder)) + textwrap.dedent(USES[folder])
    new = next(Path(place).stem for place in EXAMPLES if Path(place).parent.name == folder)
    assert new in python(extended, code).casefold()
