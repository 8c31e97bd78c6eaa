"""Asks learners, for tests: answers with their lengths, and what probes find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from distforget import cell, probes
from distforget.parts import Part
from distforget.probes import Scores
from distforget.tracks import text
from distforget.tracks.text.learner import TextLearner


def said(learner: Any, samples: pa.Table, **more: Any) -> tuple[list[str], list[int]]:
    """Answers and their lengths in tokens."""
    evidence = learner.evidence(samples, **more)
    return list(evidence.answers()), list(evidence.answer_sizes())


def scored(
    learner: Any, samples: pa.Table, probing: Sequence[Part], slots: Sequence[int] | None = None
) -> Scores:
    """What these probes find, as one."""
    evidence = learner.evidence(samples, slots)
    if isinstance(learner, TextLearner):
        whose = {
            "attack": "none",
            "track": "text",
            "dataset": "d",
            "model": "m",
            "phase": "pre_finetune",
        }
        answers = cell.answers(evidence, range(len(samples)), whose)
        evidence = text.stored_evidence(samples, answers, samples)
    found = [probes.probe_of(config).run(evidence, config) for config in probing]
    return Scores(
        {metric: values for one in found for metric, values in one.values.items()},
        {name: rows for one in found for name, rows in one.tables.items()},
    )


def all_of(track: str) -> list[Part]:
    """The probes of a track with their defaults."""
    return [probe.config() for probe in probes.probes().values() if probe.track == track]


def metrics_of(probing: Sequence[Part]) -> set[str]:
    """The names of all that they may write."""
    return {name for config in probing for name in probes.names_written(config)}


def tables_of(
    learner: Any, samples: pa.Table, probing: Sequence[Part], identity: Mapping[str, Any]
) -> dict[str, pa.Table]:
    """Tables `answers`, `scores` and those of the probes, of one state."""
    found = {"answers": [cell.ask(learner, samples, identity)]}
    stored = text.stored_evidence(samples, found["answers"][0], samples)
    for config in probing:
        evidence = stored if isinstance(learner, TextLearner) else learner.evidence(samples)
        for name, table in cell.scores(evidence, config, identity).items():
            found.setdefault(name, []).append(table)
    return {name: pa.concat_tables(tables) for name, tables in found.items()}
