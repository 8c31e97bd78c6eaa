"""Searches a method's settings: Optuna proposes values, and each proposal runs as cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from distforget import disk
from distforget.analysis.aims import Aims, aims, front
from distforget.analysis.comparisons import written_name
from distforget.engine.cluster import connected
from distforget.engine.left import is_complete
from distforget.engine.listening import Listener
from distforget.engine.run import run
from distforget.errors import UsageError
from distforget.method_choice import MethodChoice, Scalar
from distforget.methods import ResolvedMethod, resolve
from distforget.methods.base import Search
from distforget.placement import Placement
from distforget.plan import Plan, make_plan
from distforget.study import Study

ROUND = 4
"""Proposals that are made before the first of them is answered."""


@dataclass(frozen=True)
class Trial:
    """One proposal and what became of it."""

    settings: tuple[tuple[str, Scalar], ...]
    aims: Aims | None
    """None: a cell of it failed."""


def search(
    study: Study,
    method: str,
    trials: int,
    placement: Placement,
    listener: Listener,
    on_round: Callable[[Sequence[Trial]], None],
) -> list[Trial]:
    """Try settings of a method on all targets of a study; the first are the defaults.

    Proposals depend on the study's seed and on earlier answers alone, and their cells are stored:
    a search that was killed goes on where it was.

    Args:
        study: one model and dose, of targets that are not reported elsewhere.
        method: a name as in a study, e.g. NPO_GDN.

    Raises:
        UsageError: a study with several models or doses, or a method without settings to search.
    """
    if len(study.models) * len(study.doses) * study.seeds > 1:
        raise UsageError(
            f"study {study.name}: settings are searched on one model, dose and seed; it has "
            f"{len(study.models)}, {len(study.doses)} and {study.seeds}"
        )
    resolved = resolve(MethodChoice(name=method))
    space = search_space(resolved)
    if not space:
        raise UsageError(f"methods: {method} has no settings to search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=study.seed, n_startup_trials=2 * ROUND)
    proposals = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    proposals.enqueue_trial({name: getattr(resolved.config, name) for name in space})
    choices: list[MethodChoice] = []
    found: list[Trial] = []
    with ExitStack() as cluster:
        while len(found) < trials:
            asked = [proposals.ask(space) for _ in range(min(ROUND, trials - len(found)))]
            choices += [
                MethodChoice(
                    name=method,
                    variant=f"trial-{trial.number}",
                    settings=tuple(sorted(trial.params.items())),
                )
                for trial in asked
            ]
            plan = _plan(study, method, choices)
            if not is_complete(plan, placement):
                cluster.enter_context(connected(placement))
            done = _aims_of(plan, placement, listener)
            for trial, choice in zip(asked, choices[-len(asked) :], strict=True):
                reached = done.get(choice.variant)
                found.append(Trial(choice.settings, reached))
                if reached is None:
                    proposals.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    proposals.tell(trial, (reached.forget_gap, reached.retain_gap))
            on_round(found)
    return found


def search_space(method: ResolvedMethod) -> dict[str, BaseDistribution]:
    """The settings with a `Search` range; the regulariser's factor only where there is one."""
    space: dict[str, BaseDistribution] = {}
    for name, field in type(method.config).model_fields.items():
        within = next((m for m in field.metadata if isinstance(m, Search)), None)
        if within is None or (name == "retain_weight" and not method.regulariser):
            continue
        if field.annotation is int:
            space[name] = IntDistribution(int(within.low), int(within.high), log=True)
        else:
            space[name] = FloatDistribution(within.low, within.high, log=True)
    return space


def _plan(study: Study, method: str, choices: Sequence[MethodChoice]) -> Plan:
    content = {
        **study.model_dump(),
        "name": f"{study.name}-tune-{method}",
        "methods": [choice.model_dump() for choice in choices],
    }
    return make_plan(Study.model_validate(content))


def _aims_of(plan: Plan, placement: Placement, listener: Listener) -> dict[str, Aims]:
    """Aims by variant, of those whose cells all ended well."""
    summary = run(plan, placement, listener)
    cells = summary.tables["cells"].to_pandas()
    failed = set(cells.loc[cells["state"] != "done", "variant"])
    scores = summary.tables["scores"]
    reached = aims(scores, written_name(plan.study.metric, scores))
    return {variant: aim for variant, aim in reached.items() if variant not in failed}


def best(trials: Sequence[Trial]) -> tuple[list[int], int]:
    """Numbers of the trials on the front, and of the one of least sum of both gaps.

    Raises:
        UsageError: all trials failed.
    """
    gaps = {
        number: (trial.aims.forget_gap, trial.aims.retain_gap)
        for number, trial in enumerate(trials)
        if trial.aims is not None
    }
    if not gaps:
        raise UsageError("tune: all trials failed; see column error_message of table cells")
    numbers = list(gaps)
    on_front = [numbers[i] for i in front(list(gaps.values()))]
    return on_front, min(on_front, key=lambda number: sum(gaps[number]))


def write_preset(study: Study, method: str, trial: Trial, path: Path) -> None:
    """Write the study with these settings of the method alone, under a name of its own."""
    content = study.model_dump(mode="json", exclude_defaults=True)
    chosen = {"name": method, "settings": dict(trial.settings)}
    content = {**content, "name": f"{study.name}-tuned", "methods": [chosen]}
    temporary = path.with_name(f".{path.name}.tmp")
    disk.write(temporary, yaml.safe_dump(content, sort_keys=False).encode())
    temporary.replace(path)
