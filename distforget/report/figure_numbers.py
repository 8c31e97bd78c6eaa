"""Which figure of the paper is drawn by which function, and what this version cannot draw yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from matplotlib import rc_context
from matplotlib.figure import Figure

from distforget.analysis.comparisons import EXPERIMENTS, Experiment
from distforget.report.figure_style import STYLE
from distforget.report.figures import differences_by_target, schemes_compared
from distforget.report.figures_beyond import doses_and_knowledge, memory_and_damage, verdict_forest
from distforget.report.study_tables import SHOWN_ONLY, NothingToShowError, StudyTables
from distforget.study import UsageError

ONE_B, THREE_B, OPT = "Llama-3.2-1B-Instruct", "Llama-3.2-3B-Instruct", "opt-1.3b"
NEO, NEO_LARGE = "gpt-neo-1.3B", "gpt-neo-2.7B"
Draw = Callable[[StudyTables, str], Figure]


def _both(name: str, role: str, dose: str, variant: str = "plain") -> tuple[Experiment, ...]:
    """Against before unlearning and against before fine-tuning."""
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


@dataclass(frozen=True)
class OfPaper:
    """Figures of the paper that show the same of other models: number, and model if one is."""

    numbers: Mapping[int, str]
    draw: Draw


PAPER = (
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
    OfPaper({14: ""}, schemes_compared),
    OfPaper(
        {17: ""},
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
)
"""The last part of a model's path is its name in the paper."""

BEYOND: Mapping[str, Draw] = {
    "doses-target": lambda tables, model: doses_and_knowledge(tables, model, "target"),
    "doses-similar": lambda tables, model: doses_and_knowledge(tables, model, "similar"),
    "damage": memory_and_damage,
}
"""Figures that the paper lacks, a model each, by name; `verdicts` are a figure a claim."""

MISSING: Mapping[str, tuple[int, ...]] = {
    "a sketch that shows no data": (1,),
    "clusters of features are not computed yet": (2, 20, 21),
    "samples of images are not drawn yet": (3, 4, 22, 23, 24, 25),
    "topics are not computed yet": (5, 6, 19, 26),
    "SSIM of images is not drawn yet; `run` writes pictures and tables of it": (
        7, 8, 9, 10, 15, 16, *range(27, 38),
    ),
    "utility (CommonsenseQA) is not measured yet": (18,),
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure under the name of its files, or why there is none."""

    name: str
    figure: Figure | None = None
    lacking: str = ""


def draw(tables: StudyTables, wanted: str = "") -> Iterator[Drawn]:
    """Draw one figure of each of the study's models, or all there are.

    A model of the study that the paper shows too has the paper's number for it; another has the
    least number of the kind.

    Args:
        wanted: a number of the paper, verdicts, doses-target, doses-similar or damage; empty: all.

    Raises:
        UsageError: there is no such figure, or it cannot be drawn yet.
    """
    if wanted:
        _check(wanted)
    for kind in PAPER:
        if not wanted or wanted in map(str, kind.numbers):
            yield from _of_models(tables, kind, wanted)
    for name, make in BEYOND.items():
        if wanted in ("", name):
            for model in tables.paths:
                yield _drawn(f"{name}-{model}", partial(make, tables, model))
    if wanted in ("", "verdicts"):
        for experiment in EXPERIMENTS:
            e = experiment
            name = f"verdicts-{e.name}-{e.role}-{e.quantity}-{e.dose}"
            yield _drawn(name, partial(verdict_forest, tables, experiment))
    if not wanted:
        reasons = {number: why for why, numbers in MISSING.items() for number in numbers}
        for number in sorted(reasons):
            yield Drawn(f"figure-{number}", lacking=reasons[number])


def _of_models(tables: StudyTables, kind: OfPaper, wanted: str) -> Iterator[Drawn]:
    of_paper = {model: PurePosixPath(path).name for model, path in tables.paths.items()}
    asked = kind.numbers.get(int(wanted), "") if wanted else ""
    for model, known in of_paper.items():
        if asked in of_paper.values() and known != asked:
            continue
        numbers = [n for n, shown in kind.numbers.items() if shown == known]
        number = wanted or min(numbers or kind.numbers)
        yield _drawn(f"figure-{number}-{model}", partial(kind.draw, tables, model))


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
    for reason, missing in MISSING.items():
        if wanted in map(str, missing):
            raise UsageError(f"--figure {wanted}: cannot be drawn: {reason}")
    known = ", ".join([*map(str, numbers), *BEYOND, "verdicts"])
    raise UsageError(f"--figure {wanted}: no such figure; figures: {known}")
