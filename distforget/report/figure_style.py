"""Shared style of all figures: colours by meaning, panels, captions, marks for missing data.

Figures are made without pyplot, so that nothing global is left behind.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from distforget import disk
from distforget.errors import UsageError
from distforget.methods import families

Format = Literal["pdf", "svg", "png"]

WIDTH = 7.0
"""Width in inches: two columns of a printed page. The type sizes below are for print, too."""
TITLE_SIZE, CAPTION_SIZE = 8.5, 6.5
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "distforget",
}

# Okabe and Ito's palette for methods, Tol's muted one for what is compared: no colour means two
# things, and all can be told apart with any colour vision.
FAMILIES = (
    "#D55E00", "#009E73", "#0072B2", "#AA4499", "#332288", "#CC79A7", "#999933", "#661100",
)  # fmt: skip
QUANTITIES = {
    "post-pre_unlearn": ("#56B4E9", "after minus before unlearning"),
    "post-pre_finetune": ("#E69F00", "after unlearning minus before fine-tuning"),
    "dose-dose": ("#882255", "with minus without similar samples"),
}
STATES = {"before fine-tuning": "#888888", "before unlearning": "#000000"}
PLACEBO_BAND = "#DDDDDD"
REGULARISERS = {"": ("o", "-"), "KLN": ("s", "--"), "GDN": ("^", "-.")}
GONE = {
    "failed": ("x", "failed"),
    "not run": ("|", "not run"),
    "done": ("_", "nothing to compare with"),
}
"""Marker and name of a target without a bar, by the state of its cells."""


def formats(given: str) -> list[Format]:
    """The formats in '--format pdf,png'.

    Raises:
        UsageError: one of them is not known.
    """
    names = [name.strip() for name in given.split(",")]
    for name in names:
        if name not in get_args(Format):
            raise UsageError(f"--format {given}: {name!r} is none of {', '.join(get_args(Format))}")
    return [cast(Format, name) for name in names]


def method_style(method: str) -> tuple[str, str, str]:
    """Colour (its family), marker and line (its regulariser) of a method.

    The paper's families have colours of their own; of the others two may have the same.
    """
    family, _, regulariser = method.partition("_")
    known = sorted(families(), key=lambda name: not families()[name].source.startswith("paper"))
    place = known.index(family) if family in known else sum(map(ord, family))
    return (FAMILIES[place % len(FAMILIES)], *REGULARISERS.get(regulariser, ("D", ":")))


def panels(
    count: int, height: float, columns: int = 2, share_x: bool = True, wide: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of panels in reading order, on common axes.

    Args:
        height: of a panel, in inches.
        wide: as wide as the page even where no two panels stand beside each other.
    """
    across = min(count, columns)
    down = -(-count // across)
    width = WIDTH if across > 1 or wide else 0.75 * WIDTH
    figure = Figure(figsize=(width, down * height + 0.3), layout="constrained")
    made: list[Axes] = list(
        figure.subplots(down, across, squeeze=False, sharex=share_x, sharey=True).flat
    )
    for axes in made[count:]:
        axes.remove()
    for axes in made[max(count - across, 0) : count]:
        axes.tick_params(labelbottom=True)
    return figure, made[:count]


def head(axes: Axes, name: str, said: str) -> None:
    """Write a panel's name, and a note on its data beside it, or below if it is long."""
    spec = axes.get_subplotspec()
    across = spec.get_gridspec().ncols if spec else 1
    figure = axes.get_figure(root=True)
    width = figure.get_figwidth() if figure else WIDTH
    fits = 1.3 * len(name) + len(said) < 128 / across * width / WIDTH
    axes.set_title(name if fits else f"{name}\n", loc="left")
    axes.set_title(said, loc="right", fontsize=6, color="#555555")


def outer_labels(axes: Sequence[Axes], across: int, x: str, y: str) -> None:
    """Label only the lowest and the left panels."""
    for i, panel in enumerate(axes):
        if i >= len(axes) - across:
            panel.set_xlabel(x)
        if i % across == 0:
            panel.set_ylabel(y)


def mark_diverged(bars: BarContainer, diverged: Sequence[bool]) -> dict[str, Any]:
    """Hatch bars of cells that diverged; returns legend entries by name."""
    for bar, gone in zip(bars, diverged, strict=True):
        if gone:
            bar.set(hatch="//////", edgecolor="black", linewidth=0)
    example = Patch(facecolor="white", hatch="//////", edgecolor="black")
    return {"diverged": example} if any(diverged) else {}


def mark_missing(axes: Axes, missing: pd.Series[str], shift: float = 0.0) -> dict[str, Any]:
    """Mark targets without a bar, each by the state of its cells (`GONE`); for the legend.

    Args:
        missing: state by target.
        shift: of a mark from its target's place.
    """
    used: dict[str, Any] = {}
    for state, (marker, name) in GONE.items():
        gone = missing.index[missing == state].to_numpy()
        if len(gone):
            used[name] = axes.scatter(
                gone + shift, np.zeros(len(gone)), s=14, marker=marker, color="black",
                linewidth=0.8, zorder=3, label=name, clip_on=False,
            )  # fmt: skip
    return used


def targets_said(states: pd.Series[str], shown: Collection[int], diverged: int) -> str:
    """Says how many targets have a bar, and why the others have none.

    Args:
        states: of all planned targets' cells.
        shown: targets that have a bar, `diverged` of them of a cell that diverged.
    """
    missing = states[~states.index.isin(list(shown))]
    said = [f"{len(shown)} of {len(states)} targets"]
    said += [f"{n} {GONE[state][1]}" for state in GONE if (n := int((missing == state).sum()))]
    return ", ".join([*said, *[f"{diverged} diverged"] * (diverged > 0)])


def finish(figure: Figure, title: str, caption: str, legend: dict[str, Any]) -> Figure:
    """Put title, legend and caption around the panels.

    Args:
        legend: what to draw beside each name.
    """
    width, height = figure.get_size_inches()
    said = textwrap.wrap(caption, int(width * 72 / (0.55 * CAPTION_SIZE)))
    heading = textwrap.wrap(title, int(width * 72 / (0.68 * TITLE_SIZE)))
    across = _legend_columns(list(legend), width)
    title_room = (len(heading) * 1.3 * TITLE_SIZE + 4) / 72
    legend_room = -(-len(legend) // across) * 1.9 * STYLE["legend.fontsize"] / 72
    caption_room = (len(said) * 1.3 * CAPTION_SIZE + 6) / 72
    height += title_room + legend_room + caption_room
    figure.set_size_inches(width, height)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)  # panels() sets it
    top = (height - title_room - legend_room) / height
    engine.set(rect=(0, caption_room / height, 1, top - caption_room / height))
    figure.text(
        0.01, 1 - 3 / 72 / height, "\n".join(heading), va="top", fontsize=TITLE_SIZE,
        fontweight="bold",
    )  # fmt: skip
    figure.text(
        0.01, 3 / 72 / height, "\n".join(said), va="bottom", fontsize=CAPTION_SIZE, color="#333333",
        linespacing=1.25,
    )  # fmt: skip
    if legend:
        made = figure.legend(
            list(legend.values()), list(legend), loc="upper left", ncols=across, borderaxespad=0,
            bbox_to_anchor=(0.01, (height - title_room) / height), columnspacing=1.5,
        )  # fmt: skip
        made.set_in_layout(False)
    return figure


def _legend_columns(names: Sequence[str], width: float) -> int:
    """Number of legend columns that fit into a width in inches: at most 4, or 2 if narrow."""
    size = STYLE["legend.fontsize"]
    for across in range(min(len(names), 4 if width == WIDTH else 2), 1, -1):
        columns = np.array_split(np.array(names), across)
        needed = sum(max(map(len, column)) * 0.53 * size + 4.5 * size for column in columns)
        if needed <= width * 72:
            return across
    return 1


def write(figure: Figure, path: Path, kinds: Sequence[Format]) -> list[Path]:
    """Write a figure in some formats, each at once.

    Args:
        path: without the format's ending.

    Raises:
        UsageError: a file cannot be written.
    """
    written = []
    for name in kinds:
        buffer = io.BytesIO()
        undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[name]
        with rc_context(STYLE):
            figure.savefig(buffer, format=name, metadata=undated)
        place = path.with_name(f"{path.name}.{name}")
        disk.write_at_once(place, buffer.getvalue())
        written.append(place)
    return written
