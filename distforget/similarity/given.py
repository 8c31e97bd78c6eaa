"""Similar samples that the data itself names, by columns `role` and `target_id`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from distforget.errors import UsageError
from distforget.similarity import Similarity, SimilarTexts
from distforget.sources._base import Text, base_table


class GivenConfig(SimilarTexts):
    """The first similar samples and paraphrases of each target in the data."""

    kind: Literal["given"] = "given"
    too_few: Literal["fail", "fewer"] = Field(
        "fail", description="if a target has fewer than per_target: end the run, or take those"
    )


def make(families: pa.Table, config: GivenConfig, seed: int) -> pa.Table:
    """The first rows of each target with role similar, and those with role paraphrase.

    Raises:
        UsageError: a target has fewer than the study asks for, and `too_few` is fail.
    """
    rows: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in families.to_pylist():
        rows[row["target_index"], row["role"]].append(row)
    targets = [row for (_, role), found in rows.items() for row in found if role == "target"]
    chosen: list[Text] = []
    for role, setting, size in (
        ("similar", "per_target", config.per_target),
        ("paraphrase", "paraphrases", config.paraphrases),
    ):
        for target in targets:
            mine = rows[target["target_index"], role]
            if len(mine) < size and config.too_few == "fail":
                raise UsageError(
                    f"{target['place']}: this target has {len(mine)} rows with role {role!r}, the "
                    f"study asks for {size}: add rows with its target_id, lower "
                    f"data.similar.{setting}, or set data.similar.too_few: fewer"
                )
            chosen += [
                replace(Text(**row), similar_rank=rank) for rank, row in enumerate(mine[:size], 1)
            ]
    return base_table(chosen)


SIMILARITY = Similarity(
    config=GivenConfig,
    version=1,
    source="those that the data names by role and target_id",
    track="text",
    make=make,
    needs="a role for each row",
)
