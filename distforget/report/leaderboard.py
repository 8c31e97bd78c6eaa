"""The leaderboard for terminal, figure and page: one line a method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distforget.analysis.leaderboard import Column, Leaderboard, Line, Value, leaderboards
from distforget.report.figure_style import WIDTH, finish, method_style
from distforget.report.study_tables import NothingToShowError, StudyTables
from distforget.report.tables import Shown
from distforget.report.words import method_name

ARROWS = {"low": "↓", "high": "↑"}
BETTER = {"low": "less is better", "high": "more is better"}
FRONT = "★"
GREY = "#777777"


def name_of(line: Line) -> str:
    """A line's name: of a method, or of the state that it is compared with."""
    return method_name(line.method, line.variant) if line.method else line.kind


def shown(board: Leaderboard) -> Shown:
    """A leaderboard in words: means alone."""
    return Shown(
        f"Leaderboard: {board.model}, dose {board.dose} ({board.metric})",
        f"Means over targets. {FRONT}: no other method forgets and keeps more. "
        + "; ".join(f"{c.name}: {c.meaning}, {BETTER[c.better]}" for c in board.columns)
        + ".",
        ["method", *(f"{c.name} {ARROWS[c.better]}" for c in board.columns), "n"],
        1,
        [
            [
                f"{FRONT} {name_of(line)}" if line.on_front else name_of(line),
                *(said(line.values.get(c.name)) for c in board.columns),
                str(line.targets) + f", {line.diverged} diverged" * bool(line.diverged),
            ]
            for line in board.lines
        ],
    )


def said(value: Value | None) -> str:
    """A mean in two digits, or more where it is small; '' where there is none."""
    if value is None:
        return ""
    return f"{value.mean:.2f}" if value.mean >= 0.01 or value.mean == 0 else f"{value.mean:.1e}"


def leaderboard(tables: StudyTables, model: str) -> Figure:
    """A model's leaderboard at the highest dose, as a table of small intervals.

    Raises:
        NothingToShowError: no cell of the model is done.
    """
    boards = leaderboards(tables.every_score, tables.cells, tables.metrics[0])
    board = next((board for board in boards if board.model == model), None)
    if board is None:
        raise NothingToShowError(f"no cells of {model} are done")
    columns, lines = board.columns, board.lines
    figure = Figure(figsize=(WIDTH, 0.19 * len(lines) + 0.75), layout="constrained")
    made: Sequence[Axes] = list(figure.subplots(1, len(columns), sharey=True, squeeze=False).flat)
    for axes, column in zip(made, columns, strict=True):
        _column(axes, column, lines, board.is_share)
    made[0].set_yticks(
        range(len(lines)),
        [f"{FRONT} {name_of(line)}" if line.on_front else name_of(line) for line in lines],
    )
    made[0].set_ylim(len(lines) - 0.4, -0.6)
    place = 0
    for group, some in groupby(columns, lambda column: column.group):
        made[place].annotate(
            group, (0, 1), xycoords="axes fraction", xytext=(0, 24), textcoords="offset points",
            fontsize=7, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        place += len(list(some))
    caption = (
        f"{board.metric} at dose {board.dose}; mean over targets and its 95 % interval. Arrows: "
        f"which way is better. Grey: what methods are compared with. "
        f"{tables.about_of(board.metric)}"
    )
    legend = {
        f"{FRONT} no other method forgets and keeps more": Line2D([], [], ls=""),
    }
    return finish(figure, f"Leaderboard: {model}", caption, legend)


def _column(axes: Axes, column: Column, lines: Sequence[Line], is_share: bool) -> None:
    """A column's means with their intervals, each at its line."""
    for y, line in enumerate(lines):
        value = line.values.get(column.name)
        if value is None:
            continue
        colour = method_style(line.method)[0] if line.kind == "method" else GREY
        if value.low == value.low:
            axes.plot([value.low, value.high], [y, y], color=colour, linewidth=1.1)
        axes.plot(value.mean, y, marker="o", markersize=3, color=colour, ls="")
    axes.set_title(f"{column.name} {ARROWS[column.better]}", fontsize=6)
    axes.tick_params(axis="both", length=0, labelsize=5.5)
    axes.tick_params(axis="y", labelsize=6)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=2)
    axes.margins(x=0.12)
    if is_share and column.group in ("forget", "keep", "withstand"):
        axes.set_xlim(-0.06, 1.06)
