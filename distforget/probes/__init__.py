"""What a model state is asked and how it is scored: one file each; see :class:`Probe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import numpy as np

from distforget.metrics import UNICODE
from distforget.parts import Part, scan
from distforget.sources import Track

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from distforget.imaging.fitting import Labelled
    from distforget.imaging.models import Classifier


@dataclass(frozen=True)
class Scores:
    """What a probe found about the samples it was given, in their order."""

    values: Mapping[str, np.ndarray]
    """(N,) float64 for each metric; masked where a sample has no score."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Further tables by name, with N rows each, e.g. the pictures behind the scores."""

    def rows(self, low: int, high: int) -> Scores:
        """The scores of some of the samples."""
        return Scores(
            {metric: values[low:high] for metric, values in self.values.items()},
            {name: rows[low:high] for name, rows in self.tables.items()},
        )


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a model state says of each of the T tokens of a true answer; NaN where it diverged."""

    logprobs_T: np.ndarray
    """float32: log p of the token, in nats."""
    margins_T: np.ndarray
    """float32: log p of the token less that of the most likely one; 0: the model's own choice."""
    means_T: np.ndarray
    """float32: mean over the vocabulary of log p, weighted by p, in nats."""
    deviations_T: np.ndarray
    """float32: standard deviation of the same."""


def columns_of(tokens: Tokens | None) -> Sequence[np.ndarray | None]:
    """The values of `OF_TOKENS` for a sample."""
    if tokens is None:
        return [None] * len(OF_TOKENS)
    return [tokens.logprobs_T, tokens.margins_T, tokens.means_T, tokens.deviations_T]


OF_TOKENS = ("expected_logprobs", "expected_margins", "expected_means", "expected_deviations")
"""Columns of table `answers` that keep them."""


def tokens_of(found_T4: np.ndarray) -> Tokens:
    """From the columns that `losses.token_statistics` returns."""
    return Tokens(*found_T4.T)


class Evidence(Protocol):
    """What every probe may ask of a model state about some samples.

    The counterpart of `Terms`: each thing is computed once, when the first probe asks for it, for
    one cell or for several that share a batch.
    """

    samples: pa.Table
    """Rows of table `samples`: what the probes are about."""

    def answers(self) -> Sequence[str]:
        """The model's answer to each sample: greedy, or the most likely of its choices."""
        ...

    def answer_sizes(self) -> Sequence[int]:
        """Length of each answer in tokens."""
        ...

    def tokens(self) -> Sequence[Tokens | None]:
        """Of each sample: what the model says of the tokens of its true answer.

        A class is an answer of one token. None for samples that are answered by a choice.
        """
        ...

    def wrong_logprobs(self) -> Sequence[np.ndarray | None]:
        """Of each sample, float32: mean log p of a token of each wrong answer, in nats.

        None for samples without wrong answers.
        """
        ...

    def drawn_answers(self) -> Sequence[Sequence[str] | None]:
        """Of each sample: answers drawn by their probability; None where none were drawn."""
        ...


class TextEvidence(Evidence, Protocol):
    """What a probe may ask of a language model; all of it is kept with the state's answers."""

    other_scripts: bool
    """Whether true answers of the dataset have letters or digits beyond ASCII."""


class ImageEvidence(Evidence, Protocol):
    """What a probe may ask of a classifier."""

    module: Classifier
    unseen: pa.Table
    """Samples that no model was trained on: the nulls."""
    pool: pa.Table
    """All samples that are trained on at some dose."""
    others: pa.Table
    """The other samples, which are trained on at every dose."""
    mean_CHW: Tensor
    """Subtracted from each image before the model sees it."""
    samples_trained: int
    weight_decay: float
    """Weight decay of the training."""

    def images(self, samples: pa.Table) -> Labelled:
        """Converts samples into model inputs with their classes."""
        ...

    def lookalikes(self) -> Tensor:
        """(N,) float64: SSIM of each sample with the best of the real other samples."""
        ...

    def candidates(self, config: Any) -> Tensor:
        """(N, C, H, W) on the CPU: reconstructed training images, pixels about 0 to 1."""
        ...


C = TypeVar("C", bound=Part)


@dataclass(frozen=True)
class Metric:
    """One score of a probe."""

    name: str
    low: float = -np.inf
    high: float = np.inf
    """The least and the largest value it can have."""
    above_null: bool = False
    """True if it is measured against never-trained samples, so that 0 means no knowledge."""
    leads: bool = False
    """True if it says more than the study's own score of knowledge, for samples that have it."""
    beside: bool = False
    """True if it is reported beside the study's score of knowledge when no score leads."""
    falls: bool = False
    """True if it is lower the more is known of a sample."""
    measures_nothing: bool = False
    """True for a control, such as what an attack reaches with other samples, and for p-values."""
    tells: str = ""
    """What it says of a single sample; '' if it says nothing of one."""
    title: str = ""
    """Its title in figures; '' stands for its name."""


@dataclass(frozen=True)
class Questions(Generic[C]):
    """Samples of a probe's own: never trained on, and asked of each model state."""

    count: Callable[[C], int]
    """The number of questions that a configuration asks for."""
    read: Callable[[C, int], pa.Table]
    """From the configuration and the study's seed, columns question, answer and choices."""
    content: Callable[[C], object]
    """What identifies what is read, beside the configuration, e.g. the digest of a file."""
    origin: Callable[[C], tuple[str, str]]
    """Where they come from: dataset or file, and split and revision, which may be empty."""


@dataclass(frozen=True)
class Probe(Generic[C]):
    """A way to score what a model state knows of samples."""

    config: type[C]
    version: int
    source: str
    """What it measures and where it is described; `distforget list probes` prints it."""
    track: Track
    run: Callable[[Any, C], Scores]
    """From the track's evidence and the configuration."""
    metrics: tuple[Metric, ...]
    """All scores that it may write."""
    written: Callable[[C], Sequence[str]] | None = None
    """The names of the scores that a configuration writes; None if it writes all."""
    tables: tuple[str, ...] = ()
    """Names of the tables that it writes beside `scores`."""
    content: Callable[[C], object] = lambda config: None
    """Identifies files that have the same configuration, e.g. of a model that judges."""
    by_default: bool = True
    """Whether a study that names no probes has it."""
    knowledge: str = ""
    """The metric that says what a model knows, if a study names none; '' if it has no such one."""
    questions: Questions[C] | None = None
    """None if the probe is about the study's samples alone."""
    refuse: Callable[[pa.Table, pa.Table, str, C], None] | None = None
    """Refuses a configuration that cannot see a study's answers. It is given the whole dataset, the
    samples asked, the dataset's name and the configuration."""


def probes() -> Mapping[str, Probe[Any]]:
    """All probes by kind."""
    return scan(__name__, "PROBE")


def probe_of(config: C) -> Probe[C]:
    """The probe that a configuration belongs to."""
    return cast("Probe[C]", probes()[config.kind])


def names_written(config: Part) -> Sequence[str]:
    """The scores that a probe with this configuration may write."""
    probe = probe_of(config)
    return probe.written(config) if probe.written else [metric.name for metric in probe.metrics]


def metric_named(name: str) -> Metric:
    """The metric with this name in `scores`; one without bounds if no probe writes it."""
    base = name.removesuffix(UNICODE)
    every = (metric for probe in probes().values() for metric in probe.metrics)
    return next((metric for metric in every if metric.name == base), Metric(base))


def spread(values: Any, rows: Sequence[int], count: int) -> np.ndarray:
    """(count,) values of some rows, masked at the others."""
    found = np.ma.array(np.zeros(count), mask=True)
    found[list(rows)] = values
    return found


def free_answers(samples: pa.Table) -> list[str]:
    """True answers of the samples that are answered freely."""
    answers = samples["answer"].to_pylist()
    return [answers[row] for row in free_rows(samples)]


def free_rows(samples: pa.Table) -> list[int]:
    """Numbers of the samples that are answered freely and not by choosing."""
    if "choices" not in samples.column_names:
        return list(range(len(samples)))
    return np.flatnonzero(samples["choices"].is_null().to_numpy()).tolist()
