"""Groups steps by the weights that they start from, or so that groups cost about the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distforget.plan import Step


def deal(steps: Sequence[Step], groups: int, cost: Callable[[Step], float]) -> list[list[Step]]:
    """Deals steps out to groups that take about equally long: the longest step first, each to the
    group with the least work."""
    dealt: list[list[Step]] = [[] for _ in range(groups)]
    for step in sorted(steps, key=cost, reverse=True):
        min(dealt, key=lambda group: sum(map(cost, group))).append(step)
    return [group for group in dealt if group]


def by_start(steps: Sequence[Step], together: bool = True) -> list[list[Step]]:
    """Groups of steps that start from the same weights; groups of one step if not `together`."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        inputs = step.state.inputs
        start = inputs.get("finetune", inputs["model"])
        groups.setdefault(start.key if together else step.key, []).append(step)
    return list(groups.values())
