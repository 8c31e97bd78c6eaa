"""Which code makes each stage's results, and its digest; `python tests/versions.py --renew`.

A result is reused as long as its key is the same, and code is not in the key: a stage's version
is. So whoever changes what a stage computes raises its version, and whoever changes its code but
not its results (a rename, a faster way) renews the digest. tests/unit/test_versions.py fails until
one of the two was done. Comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = Path(__file__).parent / "versions.lock"

ENCODING = (
    "tracks/text/encoding.py", "tracks/text/learner.py", "tracks/text/adapters.py",
    "tracks/text/choices.py", "tracks/text/generation.py", "tracks/text/noise.py", "losses.py",
    "tracks/image/models.py", "tracks/image/learner.py",
)  # fmt: skip
SCORING = (
    "cell.py", "cell_batch.py", "selection.py", "tracks/text/rouge.py", "tracks/text/facts.py",
    "tracks/text/guard.py", "tracks/image/ssim.py", "tracks/image/kinks.py",
    "tracks/image/nulls.py", "tracks/image/slopes.py", "tracks/image/kkt.py",
    "tracks/image/reconstruction.py", "tracks/image/membership.py",
    "tracks/image/autograd_reconstruction.py", "tracks/image/attack.py", *ENCODING,
)  # fmt: skip

STAGE_FILES = {
    "dataset": (
        "engine/data.py", "tracks/rows.py", "tracks/hub.py", "tracks/text/sources",
        "tracks/image/sources", "tracks/image/dataset.py", "similarity",
    ),
    "model": ("engine/models.py", "tracks/text/models.py"),
    "finetune": (
        "engine/finetune.py", "engine/deepspeed.py", "training.py", "selection.py",
        "tracks/image/__init__.py", "tracks/image/fitting.py", *ENCODING,
    ),
    "reference": ("selection.py", *ENCODING),
    "ask": SCORING,
    "cell": (
        "training.py", "methods/__init__.py", "methods/base.py", "tracks/terms.py", *SCORING,
    ),
}  # fmt: skip
"""Files and folders under distforget/ that make a stage's result.

Not here: engine/worker.py, which only hands their inputs to them, and study.py, whose draws
tests/unit/test_study.py holds to fixed numbers.
"""

NOT_FAMILIES = ("__init__", "base")


def versions() -> dict[str, int]:
    """The version of each stage, and of each method family (`method/GA`), in the code as it is."""
    from distforget import methods
    from distforget.plan import STAGE_VERSIONS

    families = {f"method/{name}": m.version for name, m in methods.families().items()}
    return {**STAGE_VERSIONS, **families}


def files_of(stage: str) -> list[Path]:
    """The files behind a stage or method family.

    Raises:
        KeyError: STAGE_FILES does not name the stage.
        FileNotFoundError: a file of it is not there.
    """
    package = ROOT / "distforget"
    if stage.startswith("method/"):
        from distforget import methods

        name = stage.removeprefix("method/")
        module = methods.families()[name].config.__module__.rsplit(".", 1)[-1]
        return [package / "methods" / f"{module}.py"]
    found: list[Path] = []
    for part in STAGE_FILES[stage]:
        place = package / part
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        if not files or not all(file.is_file() for file in files):
            raise FileNotFoundError(f"{place}: named by STAGE_FILES[{stage!r}], but not there")
        found += files
    return found


def canonical(node: object) -> object:
    """A syntax tree as plain lists, without places, docstrings, and what Python versions add."""
    if isinstance(node, ast.AST):
        fields = [(name, canonical(value)) for name, value in ast.iter_fields(node)]
        kept = [[name, value] for name, value in fields if value not in (None, [])]
        return [type(node).__name__, *(f for f in kept if f[0] not in ("kind", "type_comment"))]
    if isinstance(node, list):
        return [canonical(item) for item in node if not _is_docstring(item)]
    return node if node is None or isinstance(node, str | bool | int) else repr(node)


def _is_docstring(node: object) -> bool:
    """A text that stands alone as a statement: a docstring of whatever it stands under."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest(sources: dict[str, str]) -> str:
    """Sixteen hexadecimal digits of the syntax trees of sources by file name."""
    trees = {name: canonical(ast.parse(text)) for name, text in sources.items()}
    return hashlib.sha256(json.dumps(trees, sort_keys=True).encode()).hexdigest()[:16]


def digests() -> dict[str, str]:
    """The digest of each stage and method family, in the code as it is."""
    return {
        stage: digest(
            {p.relative_to(ROOT).as_posix(): p.read_text("utf-8") for p in files_of(stage)}
        )
        for stage in versions()
    }


def state() -> dict[str, dict[str, int | str]]:
    """What versions.lock should hold."""
    found = digests()
    return {
        stage: {"version": number, "digest": found[stage]} for stage, number in versions().items()
    }


def differences(
    locked: dict[str, dict[str, int | str]], now: dict[str, dict[str, int | str]]
) -> list[str]:
    """What is to be done about each stage that is not as it was locked, one sentence each."""
    renew = "`python tests/versions.py --renew`"
    found = []
    for stage in sorted(locked.keys() | now.keys()):
        old, new = locked.get(stage), now.get(stage)
        if old is None:
            found.append(f"{stage} is new: run {renew}")
        elif new is None:
            found.append(f"{stage} is gone: run {renew}")
        elif new["version"] != old["version"]:
            found.append(
                f"{stage}: version {new['version']}, locked {old['version']}: run {renew}"
                if new["version"] > old["version"]  # type: ignore[operator] # both are numbers
                else f"{stage}: version went down from {old['version']} to {new['version']}: an "
                "old result would pass for a new one; raise it above both"
            )
        elif new["digest"] != old["digest"]:
            where = "METHOD's version" if stage.startswith("method/") else "plan.STAGE_VERSIONS"
            files = ", ".join(p.relative_to(ROOT).as_posix() for p in files_of(stage))
            found.append(
                f"{stage}: its code changed ({files}). If its results may change, raise its "
                f"version ({where}), so that old ones are not reused; in any case then run {renew}"
            )
    return found


def main(arguments: list[str]) -> int:
    """Print what differs from versions.lock; with --renew, write it anew."""
    locked = json.loads(LOCK.read_text("utf-8")) if LOCK.exists() else {}
    now = state()
    for line in differences(locked, now):
        print(line.split(": run `")[0] if "--renew" in arguments else line)
    if "--renew" not in arguments:
        return int(locked != now)
    LOCK.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n", "utf-8")
    print(f"wrote {LOCK.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main(sys.argv[1:]))
