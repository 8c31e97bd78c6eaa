"""Measures the scores themselves: which of them can tell what a model was trained on?"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa

from distforget import methods
from distforget.analysis.separation import Floats, auc
from distforget.attacks import UNATTACKED
from distforget.probes import metric_named

LEAST_GAP = 1e-9


@dataclass(frozen=True)
class Trust:
    """How far a score can be trusted, as the mean over models and doses; NaN: cannot be said."""

    metric: str
    tells: float
    """AUC over targets: probability that a model which was trained on a target scores higher than
    one which was not; 0.5 is chance."""
    orders: float
    """Probability that similar samples score higher where more of them were trained on; 0.5 is
    chance."""
    moves: float
    """Mean change of a target's score under harmless changes of the model, as a share of the
    difference that training on it makes."""
    targets: int


def trust(scores: pa.Table, harmless: Collection[str]) -> list[Trust]:
    """Each score of what a model knows, those that tell most first.

    Args:
        scores: table `scores` of a study.
        harmless: names of attacks that teach nothing about a target.
    """
    frame = scores.to_pandas()
    found = [
        _of(metric, mine.assign(value=_sign(metric) * mine["value"]), harmless)
        for metric, mine in frame.groupby("metric")
        if not metric_named(str(metric)).measures_nothing
    ]
    return sorted(
        (one for one in found if np.isfinite(one.tells)),
        key=lambda one: (-round(one.tells, 3), -np.nan_to_num(one.orders), one.metric),
    )


def _sign(metric: str) -> int:
    return -1 if metric_named(metric).falls else 1


def _of(metric: str, frame: pd.DataFrame, harmless: Collection[str]) -> Trust:
    plain = frame[frame["attack"] == UNATTACKED]
    pairs = list(_trained_and_not(plain))
    changes = list(_changes(frame, harmless))
    gaps = [float(trained.mean() - other.mean()) for trained, other in pairs]
    gap = _mean(gaps)
    return Trust(
        metric=metric,
        tells=_mean([auc(trained, other) for trained, other in pairs]),
        orders=_mean(list(_orders(plain))),
        moves=_mean(changes) / gap if gap > LEAST_GAP else float("nan"),
        targets=max((len(trained) for trained, _ in pairs), default=0),
    )


def _trained_and_not(plain: pd.DataFrame) -> Iterator[tuple[Floats, Floats]]:
    """Of each model and dose: targets' scores where they were trained on, and where not.

    The models that never saw a target are those retrained without it; where there are none, the
    model before fine-tuning.
    """
    targets = plain[plain["role"] == "target"]
    before = targets[targets["phase"] == "pre_unlearn"]
    retrained = targets[
        (targets["method"] == methods.reference())
        & (targets["phase"] == "post_unlearn")
        & (targets["variant"] == "plain")
        & (targets["unlearned"] == targets["target_index"])
    ]
    floor = targets[targets["phase"] == "pre_finetune"]
    for (model, dose), trained in before.groupby(["model", "dose"]):
        other = retrained[(retrained["model"] == model) & (retrained["dose"] == dose)]
        if other.empty:
            other = floor[floor["model"] == model]
        if len(other):
            yield _by_target(trained), _by_target(other)


def _orders(plain: pd.DataFrame) -> Iterator[float]:
    """Of each model and pair of doses: share of targets whose similar samples score in order."""
    similar = plain[(plain["role"] == "similar") & (plain["phase"] == "pre_unlearn")]
    for _, mine in similar.groupby("model"):
        by_dose = mine.pivot_table(index="target_index", columns="dose", values="value")
        for fewer, more in combinations(sorted(by_dose.columns), 2):
            both = by_dose[[fewer, more]].dropna()
            rises = (both[more] > both[fewer]) + 0.5 * (both[more] == both[fewer])
            yield float(rises.mean())


def _changes(frame: pd.DataFrame, harmless: Collection[str]) -> Iterator[float]:
    """Of each harmless attack: how much it moved targets' scores, in the mean."""
    targets = frame[(frame["role"] == "target")]
    state = ["model", "dose", "seed", "phase", "method", "variant", "unlearned", "sample_id"]
    plain = targets[targets["attack"] == UNATTACKED]
    for attack in harmless:
        both = targets[targets["attack"] == attack].merge(plain, on=state, suffixes=("", "_plain"))
        if len(both):
            yield float((both["value"] - both["value_plain"]).abs().mean())


def _by_target(frame: pd.DataFrame) -> Floats:
    """One value a target: its mean over repetitions."""
    found: Floats = frame.groupby("target_index")["value"].mean().to_numpy()
    return found


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
