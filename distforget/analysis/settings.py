"""Lists the settings in which two plans differ, field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from distforget.payload import differences
from distforget.plan import Plan, Step


@dataclass(frozen=True)
class Setting:
    """One field whose value differs in the same steps of two plans."""

    stages: tuple[str, ...]
    field: str
    """Dotted path in the payload, e.g. enhanced.gamma."""
    left: object
    right: object
    methods: tuple[str, ...]
    """Methods of the cells in which it differs; empty if it is not a setting of cells."""
    steps: int
    """Number of steps in which it differs, among the steps that both plans have."""


def settings(left: Plan, right: Plan) -> list[Setting]:
    """The fields that differ, and in how many steps; input steps are looked at for themselves.

    The same steps are those of one stage, model, dose, seed, method, variant and target, by the
    names that the studies give them.
    """
    ours, theirs = _by_name(left), _by_name(right)
    found: dict[tuple[str, str, str], list[Step]] = {}
    values: dict[tuple[str, str, str], tuple[object, object]] = {}
    for name, step in ours.items():
        if name not in theirs or step.key == theirs[name].key:
            continue
        for field, one, other in differences(_own(step), _own(theirs[name])):
            what = (field, json.dumps(one), json.dumps(other))
            found.setdefault(what, []).append(step)
            values[what] = one, other
    return [
        Setting(
            tuple(dict.fromkeys(step.stage for step in steps)),
            what[0],
            *values[what],
            tuple(dict.fromkeys(_method(step) for step in steps if step.stage == "cell")),
            len(steps),
        )
        for what, steps in found.items()
    ]


def _by_name(plan: Plan) -> dict[tuple[object, ...], Step]:
    return {_name(step): step for step in plan.steps()}


def _name(step: Step) -> tuple[object, ...]:
    """Identifies a step; the dataset counts as the same step whatever the studies call it."""
    about = {} if step.stage == "dataset" else step.about
    return (step.stage, *sorted((field, str(value)) for field, value in about.items()))


def _own(step: Step) -> Mapping[str, object]:
    """Version and configuration of a step, without what it builds on."""
    payload = json.loads(step.payload)
    return {f"{step.stage} version": payload["version"], **payload["config"]}


def _method(step: Step) -> str:
    variant = step.about["variant"]
    return f"{step.about['method']}{'' if variant == 'plain' else f'+{variant}'}"
