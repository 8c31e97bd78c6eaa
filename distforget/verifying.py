"""Writes the study that verifies a model which somebody else unlearned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from distforget import methods
from distforget.finding.texts import Texts
from distforget.sources._pairs import PairsConfig, Sizes, sizes
from distforget.sources._rows import rows_of
from distforget.study import Study

OTHERS = 100
"""At most so many other samples are evaluated; they show damage, not knowledge of targets."""


def joined(forget: Texts, retain: Texts) -> Iterator[dict[str, Any]]:
    """Two files as one: the rows that were to be forgotten, and the first that were to be kept.

    So are TOFU's splits laid out, and those of open-unlearning.

    Raises:
        UsageError: a row is bad, or there is none.
    """
    for name, own in forget.targets():
        yield {"role": "target", "target_id": name, **own}
    kept = (row for table in retain.tables(0, OTHERS) for row in table.to_pylist())
    for row in islice(kept, OTHERS):
        yield {"role": "other", **row}


def study_of(
    data: Path,
    before: str,
    after: str,
    base: str = "",
    retrained: str = "",
    *,
    targets: int = 0,
    name: str = "verify",
    dtype: str = "float32",
) -> tuple[Study, Sizes]:
    """A study that fine-tunes nothing and unlearns nothing: it evaluates these models.

    Args:
        data: a file or folder that a study reads, with roles and target_id where targets have
            similar samples; without roles the first `targets` rows are the targets.
        before: the model before unlearning, as `tuned` of a study.
        after: the model after unlearning.
        base: the model before fine-tuning; empty: there is no floor.
        retrained: a model that never saw the targets; empty: there is no such reference.
        targets: only the first ones; 0: all that the data names.

    Returns:
        The study, and how many samples of each role the data has.

    Raises:
        UsageError: a row of the data is bad, or it names no target.
    """
    found = sizes(PairsConfig(kind=""), lambda: rows_of(data, "--data"), str(data), targets)
    unlearned = [{"method": "unlearned", "path": after}]
    if retrained:
        unlearned.append({"method": methods.reference(), "path": retrained})
    model: dict[str, Any] = {"name": "model", "base": base, "tuned": before, "unlearned": unlearned}
    study = Study.model_validate(
        {
            "name": name,
            "data": {
                "source": {"kind": "file", "path": str(data)},
                "targets": found.targets,
                "neighbours": found.neighbours,
                "others": min(found.others, OTHERS),
                # Targets may have as many as they have, some of them none.
                "similar": {"per_target": found.similar, "too_few": "fewer"},
            },
            "models": [model],
            "dtype": dtype,
            "doses": ["all"],
            "methods": [],
            "unlearn_targets": found.targets,
            "verify": {"similar": found.similar, "others": min(found.others, OTHERS)},
        }
    )
    return study, found


def unsaid(study: Study, found: Sizes) -> list[str]:
    """What cannot be said since a model or similar samples are missing, one sentence each."""
    (model,) = study.models
    said = []
    if not model.base:
        said.append(
            "Without --base nothing is compared with a model that never saw the data, so whether "
            "knowledge fell to what everybody knows cannot be said."
        )
    if all(one.method != methods.reference() for one in model.unlearned):
        said.append(
            "Without --retrained nothing is compared with a model that was trained without the "
            "targets, so whether unlearning is complete cannot be said."
        )
    if not found.similar:
        said.append(
            "The data names no similar samples (role similar and target_id), so whether they keep "
            "a target's knowledge alive cannot be said."
        )
    return said
