"""Multiple-choice questions: whether the right answer is the most likely one."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from distforget.contents import file_digest
from distforget.metrics import CHOICE_ACCURACY
from distforget.parts import Part
from distforget.probes import (
    Metric,
    Probe,
    Questions,
    Scores,
    TextEvidence,
    _questions,
    free_rows,
    spread,
)


class ChoicesConfig(Part):
    """Accuracy on multiple-choice questions, never trained on: what unlearning costs (E8)."""

    kind: Literal["choices"] = "choices"
    questions: int = Field(
        0, ge=0, description="questions asked of each model state, the same for all"
    )
    path: str = Field(
        "tau/commonsense_qa",
        description="a datasets hub id, or a .jsonl file of its form: question, choices (label, "
        "text), answerKey",
    )
    split: str = Field("validation", description="split of a hub dataset")
    revision: str = Field("", description="commit or branch of a hub dataset; empty: the newest")

    @model_validator(mode="after")
    def _a_file_has_no_revision(self) -> ChoicesConfig:
        if self.revision and _questions.is_file(self.path):
            raise ValueError(
                f"revision is {self.revision!r}, but path {self.path!r} is a file; delete one of "
                "the two"
            )
        return self


def run(evidence: TextEvidence, config: ChoicesConfig) -> Scores:
    """1 where the right answer was chosen, 0 where another was."""
    count = len(evidence.samples)
    rows = np.setdiff1d(np.arange(count), free_rows(evidence.samples)).tolist()
    if not rows:
        return Scores({})
    answers, true = evidence.answers(), evidence.samples["answer"].to_pylist()
    right = [float(answers[row] == true[row]) for row in rows]
    return Scores({CHOICE_ACCURACY: spread(right, rows, count)})


def _read(config: ChoicesConfig, seed: int) -> pa.Table:
    return _questions.read(config.path, config.split, config.revision, config.questions, seed)


def _content(config: ChoicesConfig) -> str | None:
    is_file = _questions.is_file(config.path)
    return file_digest(config.path, f"{_questions.FIELD}.path") if is_file else None


def _origin(config: ChoicesConfig) -> tuple[str, str]:
    at = f"{config.split}@{config.revision}".rstrip("@")
    return config.path, "" if _questions.is_file(config.path) else at


PROBE = Probe(
    config=ChoicesConfig,
    version=1,
    source="accuracy on multiple-choice questions, e.g. CommonsenseQA (paper section 5, E8)",
    track="text",
    run=run,
    metrics=(Metric(CHOICE_ACCURACY, 0, 1),),
    questions=Questions(lambda config: config.questions, _read, _content, _origin),
)
