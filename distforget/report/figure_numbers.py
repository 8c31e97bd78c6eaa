"""Maps the paper's figure numbers to the functions that draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from matplotlib import rc_context
from matplotlib.figure import Figure

from distforget.analysis.comparisons import EXPERIMENTS, Experiment
from distforget.errors import UsageError
from distforget.report.figure_style import STYLE
from distforget.report.figures import differences_by_target, schemes_compared, utility_compared
from distforget.report.figures_beyond import doses_and_knowledge, memory_and_damage, verdict_forest
from distforget.report.figures_clusters import (
    lengths_by_topic,
    lengths_of_two,
    neighbourhood,
    sample_distribution,
    source_topics,
    topic_map,
)
from distforget.report.figures_recovered import recovered_before_and_after
from distforget.report.figures_samples import cosine_to_targets, sample_pictures
from distforget.report.figures_ssim import ssim_before_and_after
from distforget.report.image_panels import Chosen, Setting
from distforget.report.leaderboard import leaderboard
from distforget.report.study_tables import SHOWN_ONLY, NothingToShowError, StudyTables
from distforget.sources import Track

ONE_B, THREE_B = ("Llama-3.2-1B-Instruct",), ("Llama-3.2-3B-Instruct",)
OPT, NEO, NEO_LARGE = ("opt-1.3b",), ("gpt-neo-1.3B",), ("gpt-neo-2.7B",)
MNIST, NOISE, FASHION, CIFAR = ("MNIST",), ("MNIST noise",), ("FashionMNIST",), ("CIFAR10",)
RETRAINED = "before and after retraining without the target"
NOT_RETRAINED = "before and after unlearning without retraining"
NEAREST = "each unlearned with the samples nearest to it"
SIMILAR, WITH = Setting("similar", "all"), Setting("target", "all")
TARGETS = (Setting("target", "none"), WITH)
Draw = Callable[[StudyTables, str], Figure]


def _both(name: str, role: str, dose: str, variant: str = "plain") -> tuple[Experiment, ...]:
    """The comparisons with before unlearning and with before fine-tuning."""
    return tuple(
        _find(name, quantity, role, dose, variant)
        for quantity in ("post-pre_unlearn", "post-pre_finetune")
    )


def _find(name: str, quantity: str, role: str, dose: str, variant: str = "plain") -> Experiment:
    wanted = (name, quantity, role, dose, variant)
    return next(
        e
        for e in (*EXPERIMENTS, *SHOWN_ONLY)
        if (e.name, e.quantity, e.role, e.dose, e.variant) == wanted
    )


def _bars(title: str, experiments: tuple[Experiment, ...]) -> Draw:
    return lambda tables, model: differences_by_target(tables, model, title, experiments)


def _images(draw: Callable[..., Figure], title: str, chosen: Chosen, *settings: Setting) -> Draw:
    return lambda tables, model: draw(tables, model, title, settings, chosen)


@dataclass(frozen=True)
class OfPaper:
    """Figures of the paper that show the same for different models or image datasets.

    Each number has the names of the models (text) or datasets (images) that it is of in the paper.
    """

    numbers: Mapping[int, tuple[str, ...]]
    draw: Draw
    track: Track = "text"
    of_models: bool = True
    """Whether there is one figure per model; otherwise there is one of the data."""


def _of_data(
    numbers: Mapping[int, tuple[str, ...]], draw: Callable[[StudyTables], Figure],
    track: Track = "text",
) -> OfPaper:  # fmt: skip
    return OfPaper(numbers, lambda tables, _: draw(tables), track, of_models=False)


PAPER = (
    _of_data({1: MNIST}, neighbourhood, "image"),
    _of_data({2: MNIST, 20: FASHION, 21: CIFAR}, sample_distribution, "image"),
    _of_data({3: MNIST, 22: FASHION, 23: CIFAR}, cosine_to_targets, "image"),
    _of_data({4: MNIST, 24: FASHION, 25: CIFAR}, sample_pictures, "image"),
    _of_data({5: ()}, topic_map),
    _of_data({6: ()}, lengths_of_two),
    _of_data({19: ()}, source_topics),
    _of_data({26: ()}, lengths_by_topic),
    OfPaper(
        {11: ONE_B, 38: THREE_B, 39: NEO, 40: NEO_LARGE},
        _bars("Similar samples, trained on", _both("E3", "similar", "all")),
    ),
    OfPaper(
        {12: THREE_B, 43: THREE_B, 46: ONE_B, 49: OPT, 52: NEO_LARGE},
        _bars(
            "Target, with minus without similar samples",
            (_find("E4", "dose-dose", "target", "all"),),
        ),
    ),
    OfPaper(
        {13: NEO, 53: ONE_B, 54: THREE_B, 55: NEO_LARGE},
        _bars("Similar samples, never trained on", _both("E5", "similar", "none")),
    ),
    OfPaper({14: ()}, schemes_compared),
    OfPaper({18: ()}, utility_compared),
    OfPaper(
        {17: ()},
        _bars("Similar samples, enhanced unlearning", _both("E7", "similar", "all", "enhanced")),
    ),
    OfPaper(
        {41: THREE_B, 44: ONE_B, 47: OPT, 50: NEO_LARGE},
        _bars("Target, without similar samples", _both("E4", "target", "none")),
    ),
    OfPaper(
        {42: THREE_B, 45: ONE_B, 48: OPT, 51: NEO_LARGE},
        _bars("Target, similar samples kept", _both("E4", "target", "all")),
    ),
    OfPaper(
        {7: FASHION + CIFAR, 27: MNIST},
        _images(
            ssim_before_and_after, f"SSIM of similar samples, {RETRAINED}", "retrained", SIMILAR
        ),
        "image",
    ),
    OfPaper(
        {8: MNIST, 28: FASHION, 29: CIFAR},
        _images(recovered_before_and_after, f"Similar samples, {RETRAINED}", "retrained", SIMILAR),
        "image",
    ),
    OfPaper(
        {9: MNIST, 30: FASHION, 32: CIFAR, 36: NOISE},
        _images(ssim_before_and_after, f"SSIM of targets, {RETRAINED}", "retrained", *TARGETS),
        "image",
    ),
    OfPaper(
        {10: MNIST, 31: FASHION, 33: CIFAR, 37: NOISE},
        _images(recovered_before_and_after, f"Targets, {RETRAINED}", "retrained", *TARGETS),
        "image",
    ),
    OfPaper(
        {15: MNIST + FASHION},
        _images(ssim_before_and_after, f"SSIM of targets, {NEAREST}", "enhanced", WITH),
        "image",
    ),
    OfPaper(
        {16: MNIST + FASHION},
        _images(recovered_before_and_after, f"Targets, {NEAREST}", "enhanced", WITH),
        "image",
    ),
    OfPaper(
        {34: MNIST},
        _images(ssim_before_and_after, f"SSIM {NOT_RETRAINED}", "not retrained", *TARGETS, SIMILAR),
        "image",
    ),
    OfPaper(
        {35: MNIST},
        _images(
            recovered_before_and_after, f"Samples {NOT_RETRAINED}", "not retrained", WITH, SIMILAR
        ),
        "image",
    ),
)
"""The last part of a model's path is its name in the paper; of data see `Images.dataset`.

Text of the paper's A.10 speaks of targets, its captions (figures 34, 35) of similar samples: both
are drawn.
"""

BEYOND: Mapping[str, Draw] = {
    "doses-target": lambda tables, model: doses_and_knowledge(tables, model, "target"),
    "doses-similar": lambda tables, model: doses_and_knowledge(tables, model, "similar"),
    "damage": memory_and_damage,
    "leaderboard": leaderboard,
}
"""Figures that the paper lacks, a model each, by name; `verdicts` are one figure per claim."""


@dataclass(frozen=True)
class Drawn:
    """A figure with the name of its files, or the reason why there is none."""

    name: str
    figure: Figure | None = None
    lacking: str = ""


def draw(tables: StudyTables, wanted: str = "") -> Iterator[Drawn]:
    """Draw one figure of each of the study's models (or one of its data), or all there are.

    A model (of images: a dataset) of the study that the paper shows too has the paper's number for
    it; another has the least number of the kind. What belongs to the other track is one line.

    Args:
        wanted: a number of the paper, verdicts, doses-target, doses-similar, damage or
            leaderboard; empty: all.

    Raises:
        UsageError: there is no such figure.
    """
    if wanted:
        _check(wanted)
    strange = [kind for kind in PAPER if kind.track != tables.track]
    for kind in PAPER:
        if kind in strange:
            continue
        if not wanted or wanted in map(str, kind.numbers):
            yield from _of_paper(tables, kind, wanted)
    for name, make in BEYOND.items():
        if wanted in ("", name):
            for model in tables.paths:
                yield _drawn(f"{name}-{model}", partial(make, tables, model))
    if wanted in ("", "verdicts"):
        for experiment in EXPERIMENTS:
            if experiment.track in ("", tables.track):
                e = experiment
                scheme = f"-{e.variant}" * (e.variant not in ("", "plain"))
                name = f"verdicts-{e.name}-{e.role}-{e.quantity}-{e.dose}{scheme}"
                yield _drawn(name, partial(verdict_forest, tables, experiment))
    numbers = sorted(number for kind in strange for number in kind.numbers)
    if not wanted or wanted in map(str, numbers):
        other = "text" if tables.images else "images"
        shown = [int(wanted)] if wanted else numbers
        yield Drawn(_figures(shown), lacking=f"drawn from a study of {other}")


def _figures(numbers: Sequence[int]) -> str:
    """'figure-8', 'figures 2, 20-21'."""
    if len(numbers) == 1:
        return f"figure-{numbers[0]}"
    ends = [n for n in numbers if not {n - 1, n + 1} <= set(numbers)]
    return "figures " + ", ".join(
        str(first) if first + 1 not in numbers else f"{first}-{min(n for n in ends if n > first)}"
        for first in ends
        if first - 1 not in numbers
    )


def _of_paper(tables: StudyTables, kind: OfPaper, wanted: str) -> Iterator[Drawn]:
    if tables.images:
        known_as = dict.fromkeys(tables.paths, tables.images.dataset)
    else:
        known_as = {model: PurePosixPath(path).name for model, path in tables.paths.items()}
    asked = kind.numbers[int(wanted)] if wanted else ()
    of_another = set(asked) & set(known_as.values())
    for model, known in known_as.items():
        if of_another and known not in asked:
            continue
        numbers = [n for n, shown in kind.numbers.items() if known in shown]
        name = f"figure-{wanted or min(numbers or kind.numbers)}"
        if not kind.of_models:
            yield _drawn(name, partial(kind.draw, tables, model))
            return
        yield _drawn(f"{name}-{model}", partial(kind.draw, tables, model))


def _drawn(name: str, make: Callable[[], Figure]) -> Drawn:
    try:
        with rc_context(STYLE):
            return Drawn(name, make())
    except NothingToShowError as error:
        return Drawn(name, lacking=str(error))


def _check(wanted: str) -> None:
    numbers = sorted(number for kind in PAPER for number in kind.numbers)
    if wanted in (*map(str, numbers), *BEYOND, "verdicts"):
        return
    known = ", ".join([*map(str, numbers), *BEYOND, "verdicts"])
    raise UsageError(f"--figure {wanted}: no such figure; figures: {known}")
