"""A file imports only from its own floor and those below it; Ray and text stay where they are."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distforget"

FLOORS = (
    (
        "distforget.errors",
        "distforget.draws",
        "distforget.words",
        "distforget.contents",
        "distforget.frozen",
        "distforget.parts",
        "distforget.metrics",
        "distforget.rouge",
        "distforget.image_config",
        "distforget.models",
        "distforget.imaging",
        "distforget.sources",
        "distforget.finding",
        "distforget.similarity",
        "distforget.probes",
        "distforget.attacks",
        "distforget.data",
        "distforget.method_choice",
        "distforget.study",
        "distforget.placement",
    ),
    (
        "distforget.methods",
        "distforget.losses",
        "distforget.store",
        "distforget.bucket",
        "distforget.remote",
        "distforget.attempts",
        "distforget.disk",
        "distforget.loading",
        "distforget.schemas",
        "distforget.provenance",
        "distforget.payload",
    ),
    (
        "distforget.tracks",
        "distforget.selection",
        "distforget.steppers",
        "distforget.training",
        "distforget.batches",
    ),
    (
        "distforget.plan",
        "distforget.origins",
        "distforget.verifying",
        "distforget.auditing",
        "distforget.analysis",
        "distforget.cell",
        "distforget.attacked",
        "distforget.cell_batch",
    ),
    ("distforget.engine",),
    ("distforget.report", "distforget.query"),
    ("distforget.api",),
    ("distforget.cli",),
)
"""From the ground up; a package stands for all of its modules."""

ONLY_IN_ENGINE = ("ray", "deepspeed")

KNOWS_NO_TRACK = (
    "cell.py",
    "cell_batch.py",
    "training.py",
    "store.py",
    "methods",
    "analysis",
    "engine",
)
TEXT_WORDS = frozenset(
    {
        "question", "questions", "prompt", "prompts", "tokenizer", "input_ids", "attention_mask",
        "generate", "rouge_scores", "TextLearner", "TextExamples", "Encoder",
    }
)  # fmt: skip
"""Names and column names that only the text track may use ('answer' is a column of `answers`)."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return found


def own_imports(path: Path) -> set[str]:
    return {name for name in imports(path) if name in MODULES}


def floor_of(module: str) -> int | None:
    for number, floor in enumerate(FLOORS):
        if any(module == name or module.startswith(f"{name}.") for name in floor):
            return number
    return None


def within(parts: tuple[str, ...]) -> list[Path]:
    places = [PACKAGE / part for part in parts]
    return [f for p in places for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]


def test_every_module_has_a_floor() -> None:
    homeless = [name for name in MODULES if floor_of(name) is None]
    assert homeless == ["distforget"], "give new modules a floor in FLOORS"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_floor_and_below(module: str) -> None:
    floor = floor_of(module)
    mine = len(FLOORS) if floor is None else floor  # the front door offers what is inside
    above = [i for i in own_imports(MODULES[module]) if (floor_of(i) or 0) > mine]
    assert not above, f"{module} is on floor {mine}; above it: {above}"


def test_no_two_modules_import_each_other() -> None:
    graph = {name: own_imports(path) for name, path in MODULES.items()}
    # A package's own front door may offer what lies inside it.
    graph = {n: {i for i in found if not i.startswith(f"{n}.")} for n, found in graph.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("library", ONLY_IN_ENGINE)
def test_a_library_of_the_engine_stays_in_it(library: str) -> None:
    users = {
        module
        for module, path in MODULES.items()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users, f"nothing imports {library}: this test sees no imports"
    assert [m for m in users if not m.startswith("distforget.engine.")] == []


@pytest.mark.parametrize("path", within(KNOWS_NO_TRACK), ids=module_name)
def test_the_frame_knows_no_track(path: Path) -> None:
    tracks = [name for name in imports(path) if name.startswith("distforget.tracks.")]
    assert set(tracks) <= {"distforget.tracks.base"}
    assert "transformers" not in {name.split(".")[0] for name in imports(path)}
    assert sorted(words(path.read_text("utf-8")) & TEXT_WORDS) == []


def words(source: str) -> set[str]:
    """Names, attributes, arguments, keywords and whole strings of a file, as in row["question"]."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        values = (
            getattr(node, name, None)
            for name in ("id", "attr", "arg", "name", "value")
            if not isinstance(node, ast.FormattedValue)
        )
        found |= {value for value in values if isinstance(value, str)}
    return found


@pytest.mark.parametrize(
    "source", ["question = 1", "x.tokenizer", "f(prompt=1)", "row['question']", "def generate(): 0"]
)
def test_text_words_are_seen(source: str) -> None:
    assert words(source) & TEXT_WORDS


@pytest.mark.parametrize("package", [p for p in MODULES if MODULES[p].name == "__init__.py"])
def test_no_function_of_a_package_has_the_name_of_a_module_in_it(package: str) -> None:
    """Importing the module would put it in the function's place."""
    tree = ast.parse(MODULES[package].read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    inside = {name.removeprefix(f"{package}.") for name in MODULES if name.startswith(package)}
    assert functions & inside == set()
