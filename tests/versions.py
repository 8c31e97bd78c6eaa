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
from typing import Any

ROOT = Path(__file__).parent.parent
LOCK = Path(__file__).parent / "versions.lock"

ENCODING = (
    "tracks/text/encoding.py", "tracks/text/learner.py", "tracks/text/adapters.py",
    "tracks/text/choices.py", "tracks/text/generation.py", "tracks/text/noise.py", "losses.py",
    "imaging/models.py", "imaging/pixels.py", "tracks/image/learner.py",
)  # fmt: skip
ASKING = ("cell.py", "cell_batch.py", "selection.py", *ENCODING)
SCORING = (
    "cell.py", "rouge.py", "words.py", "metrics.py", "probes/_*.py", "imaging/*.py",
    "tracks/text/stored.py", "tracks/image/learner.py",
)  # fmt: skip

STAGE_FILES = {
    "embeddings": (
        "engine/embedding.py", "finding/embedders.py", "finding/image_features.py",
        "finding/images.py", "finding/kinds.py", "finding/ngrams.py", "finding/texts.py",
        "sources/_pairs.py", "sources/_pool.py", "sources/_rows.py", "sources/folder.py",
        "sources/npz.py", "words.py",
    ),
    "completions": ("engine/rewriting.py", "similarity/_writers.py"),
    "dataset": (
        "engine/data.py", "tracks/rows.py", "tracks/text/samples.py", "probes/_questions.py",
        "tracks/image/samples.py", "sources/_*.py", "similarity/_*.py",
    ),
    "model": ("engine/models.py", "tracks/text/models.py"),
    "finetune": (
        "engine/finetune.py", "engine/deepspeed.py", "steppers.py", "training.py", "batches.py",
        "selection.py", "tracks/image/__init__.py", "imaging/fitting.py", *ENCODING,
    ),
    "reference": ("selection.py", *ENCODING),
    "ask": ASKING,
    "cell": (
        "steppers.py", "training.py", "methods/__init__.py", "methods/base.py", "tracks/terms.py",
        *ASKING,
    ),
    "attack": ("attacked.py", *ASKING),
    "probe": SCORING,
}  # fmt: skip
"""Files and folders under distforget/ that make a stage's result.

Not here: engine/worker.py, which only hands their inputs to them, and study.py, whose draws
tests/unit/test_study.py holds to fixed numbers.
"""


def versions() -> dict[str, int]:
    """The version of each stage and of each part (`methods/GA`) in the code as it is."""
    from distforget.plan import STAGE_VERSIONS

    return {**STAGE_VERSIONS, **{name: part.version for name, part in parts().items()}}


def parts() -> dict[str, Any]:
    """The parts by folder and kind, e.g. `sources/npz`."""
    from distforget.attacks import attacks
    from distforget.methods import families
    from distforget.probes import probes
    from distforget.similarity import similarities
    from distforget.sources import sources

    folders = {
        "attacks": attacks(),
        "methods": families(),
        "probes": probes(),
        "similarity": similarities(),
        "sources": sources(),
    }
    return {f"{folder}/{kind}": part for folder, f in folders.items() for kind, part in f.items()}


def files_of(stage: str) -> list[Path]:
    """The files behind a stage or part.

    Raises:
        KeyError: STAGE_FILES does not name the stage.
        FileNotFoundError: a file of it is not there.
    """
    package = ROOT / "distforget"
    if "/" in stage:
        return [Path(str(sys.modules[parts()[stage].config.__module__].__file__))]
    found: list[Path] = []
    for part in STAGE_FILES[stage]:
        place = package / part
        files = sorted(place.parent.glob(place.name)) if "*" in part else [place]
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
    """The digest of each stage and part in the code as it is."""
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
            where = "its part's version" if "/" in stage else "plan.STAGE_VERSIONS"
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
