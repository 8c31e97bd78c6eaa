"""Writes the study of an audit: each request is unlearned alone, and with what is similar to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distforget.study import Study

ALONE, TOGETHER, ENHANCED = "plain", "enhanced-similar", "enhanced-noise"
"""Variants of an audit's cells: the target alone, with its similar samples, and enhanced."""
GROUP = "enhanced-group"
"""Variant of a target with one group of its similar samples; the group's number follows."""
LOW = "enhanced-low"
"""Variant with noise alone, where no target has a similar sample."""
MOST_GROUPS = 4
"""At most so many groups of a target are unlearned with it in turn, the largest ones."""
PLACEBOS = 2
OTHERS = 20
"""Other samples that each model is asked; they show damage."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """A target with its similar samples in the order of their ranks."""

    target_id: str
    target: Row
    similar: Sequence[Row]
    groups: Sequence[Sequence[int]]
    """Ranks (from 1) of the similar samples of each group that is unlearned in turn."""


def requests_of(rows: Sequence[Row]) -> list[Request]:
    """The requests of a file that `similar` wrote, those with most groups and samples first.

    Args:
        rows: with role target, similar or other, target_id and cluster.
    """
    of_target: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["role"] == "similar":
            of_target[row["target_id"]].append(row)
    found = []
    for row in rows:
        if row["role"] == "target":
            mine = of_target[row["target_id"]]
            sizes = Counter(one["cluster"] for one in mine)
            groups = [
                [rank for rank, one in enumerate(mine, 1) if one["cluster"] == cluster]
                for cluster, _ in sizes.most_common(MOST_GROUPS)
            ]
            found.append(Request(row["target_id"], row, mine, groups if len(groups) > 1 else []))
    return sorted(found, key=lambda request: (-len(request.groups), -len(request.similar)))


def ordered(requests: Sequence[Request], others: Sequence[Row]) -> list[Row]:
    """The rows of the study's data: targets in the order of the requests."""
    return [
        *(request.target for request in requests),
        *(row for request in requests for row in request.similar),
        *others,
    ]


def study_of(
    data: Path,
    requests: Sequence[Request],
    others: int,
    model: str,
    base: str,
    method: str,
    settings: Mapping[str, Any],
    *,
    name: str,
    dtype: str,
) -> Study:
    """A study that fine-tunes nothing and unlearns each request in several ways.

    Args:
        data: the file with the rows of :func:`ordered`.
        others: number of other rows in it.
        model: the model that is audited.
        base: the model before fine-tuning; empty: there is no floor.
        settings: of the method, where they differ from its defaults.
    """
    most = max(len(request.similar) for request in requests)
    whole = [range(1, len(request.similar) + 1) for request in requests if request.similar]
    about = {"name": method, "settings": dict(settings)}
    none = {"paraphrases": 0, "gamma": 0.0}
    methods: list[dict[str, Any]] = [about]
    if most:
        similar = {"similar": [list(ranks) for ranks in whole]}
        first = {**about, "targets": len(whole)}
        methods += [
            {**first, "variant": TOGETHER, "enhanced": {**none, **similar}},
            {**first, "variant": ENHANCED, "enhanced": {"paraphrases": 0, **similar}},
        ]
    else:
        methods.append({**about, "enhanced": {"paraphrases": 0}})
    for number in range(max(len(request.groups) for request in requests)):
        mine = [request.groups[number] for request in requests if len(request.groups) > number]
        variant = {"variant": f"{GROUP}{number + 1}", "targets": len(mine)}
        methods.append({**about, **variant, "enhanced": {**none, "similar": mine}})
    asked = min(others, OTHERS)
    return Study.model_validate(
        {
            "name": name,
            "data": {
                "source": {"kind": "file", "path": str(data)},
                "targets": len(requests),
                "neighbours": 0,
                "others": others,
                "similar": {"per_target": most, "too_few": "fewer"},
            },
            "models": [{"name": "model", "base": base, "tuned": model}],
            "dtype": dtype,
            "doses": ["all"],
            "methods": methods,
            "unlearn_targets": len(requests),
            "placebo_targets": min(PLACEBOS, len(requests)),
            "verify": {"similar": most, "others": asked},
        }
    )
