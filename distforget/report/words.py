"""How methods, claims and intervals are written everywhere."""

from __future__ import annotations

from distforget.analysis.comparisons import Experiment
from distforget.attacks import UNATTACKED

EXPECTED = {"positive": "> 0", "negative": "< 0", "zero": "about 0"}


def claim_of(experiment: Experiment) -> str:
    """A claim in a few words, e.g. 'E4 target: dose-dose > 0'."""
    name = f"{experiment.name} " if experiment.name not in experiment.quantity else ""
    return f"{name}{experiment.role}: {experiment.quantity} {EXPECTED[experiment.expected]}"


def after(attack: str) -> str:
    """', after the attack quantise-4'; empty where there was none."""
    return "" if attack == UNATTACKED else f", after the attack {attack}"


def method_name(name: str, variant: str) -> str:
    """A method and, where it is not plain, its variant."""
    return name if variant == "plain" else f"{name}+{variant}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """'[-0.51, -0.11]'; empty where there is none."""
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]" if low == low else ""
