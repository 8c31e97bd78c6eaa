"""How steps are put together: by the weights that they start from, or by what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distforget.plan import Step


def deal(steps: Sequence[Step], groups: int, cost: Callable[[Step], float]) -> list[list[Step]]:
    """Steps to groups that end at about the same time: the longest first, to who has least."""
    dealt: list[list[Step]] = [[] for _ in range(groups)]
    for step in sorted(steps, key=cost, reverse=True):
        min(dealt, key=lambda group: sum(map(cost, group))).append(step)
    return [group for group in dealt if group]


def by_start(steps: Sequence[Step], together: bool = True) -> list[list[Step]]:
    """Steps that start from the same weights; each alone if not `together`."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        start = step.inputs.get("finetune", step.inputs["model"])
        groups.setdefault(start.key if together else step.key, []).append(step)
    return list(groups.values())
