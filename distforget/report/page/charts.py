"""The page's charts as Vega-Lite specifications.

Statistics come from `analysis`; the page only picks rows and draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from distforget.analysis.doses import BEFORE, by_target, dose_response
from distforget.method_choice import PLACEBO
from distforget.report.figure_style import method_style
from distforget.report.page.scripts import number
from distforget.report.study_tables import StudyTables
from distforget.report.words import method_name

Chart = alt.LayerChart | alt.FacetChart

FIT = alt.AutoSizeParams(type="fit-x", contains="padding")
DOT: dict[str, Any] = {
    "filled": True,
    "cursor": "pointer",
    "stroke": "transparent",
    "strokeWidth": 8,
}
"""The clear stroke makes a small dot easy to hit."""
SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond"}
DASHES = {"-": [1, 0], "--": [6, 3], "-.": [6, 3, 1, 3], ":": [1, 2]}
"""Vega's markers for those of matplotlib in `figure_style`."""


def specifications(tables: StudyTables) -> dict[str, Any]:
    """The charts of a study: forest (of a claim), levels and, for over two doses, doses."""
    planned = tables.planned[["method", "variant"]].drop_duplicates().to_numpy().tolist()
    states = [method_name(method, variant) for method, variant in planned]
    colours = {method_name(m, v): method_style(m)[0] for m, v in planned}
    for name in (*BEFORE.values(), PLACEBO):
        colours[name] = "#888888"
    order = [*BEFORE.values(), PLACEBO, *[s for s in dict.fromkeys(states) if s != PLACEBO]]
    metric = tables.metrics[0]
    made = {"forest": forest(colours), "levels": levels(colours, metric)}
    if len(tables.doses) > 2:
        made["doses"] = doses(colours, metric)
    return {**{name: chart.to_dict() for name, chart in made.items()}, "order": order}


def forest(colours: dict[str, str]) -> Chart:
    """Mean difference and its interval, one line per model, method and dose; one dot per target."""
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False))
    colour = _colour(colours)
    lines, dots = alt.NamedData("lines"), alt.NamedData("points")
    margin = (
        alt.Chart(alt.NamedData("margin"))
        .mark_rect(opacity=0.12, color="#888888")
        .encode(x=alt.X("low:Q", title="difference", axis=alt.Axis(tickCount=7)), x2="high:Q")
    )
    zero = alt.Chart(alt.NamedData("margin")).mark_rule(opacity=0.6).encode(x="zero:Q")
    intervals = alt.Chart(lines).mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y,
                                                                color=colour)  # fmt: skip
    means = (
        alt.Chart(lines)
        .mark_point(size=70, filled=True, shape="diamond", opacity=1)
        .encode(x="estimate:Q", y=y, color=colour, tooltip="told:N")
    )
    points = (
        alt.Chart(dots, name="targets")
        .mark_point(size=38, opacity=0.5, **DOT)
        .encode(x="value:Q", y=y, color=colour, tooltip="told:N", description="told:N")
    )
    return alt.layer(margin, zero, points, intervals, means).properties(width="container")


def levels(colours: dict[str, str], metric: str) -> Chart:
    """Score of each target in each state, one dot per target, with a row for each dose."""
    x = alt.X("value:Q", title=metric, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    y = alt.Y("line:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False))
    offset = alt.YOffset("offset:Q", scale=alt.Scale(domain=[0, 1]))
    colour = _colour(colours)
    points = (
        alt.Chart(alt.NamedData("points"), name="targets")
        .mark_point(size=42, opacity=0.55, **DOT)
        .encode(x=x, y=y, yOffset=offset, color=colour, tooltip="told:N", description="told:N")
    )
    lines = alt.NamedData("lines")
    intervals = alt.Chart(lines).mark_rule(strokeWidth=1.5).encode(
        x="lower:Q", x2="upper:Q", y=y, color=colour
    )  # fmt: skip
    means = (
        alt.Chart(lines)
        .mark_tick(thickness=3, size=20, opacity=1)
        .encode(x="mean:Q", y=y, color=colour, tooltip="told:N")
    )
    return alt.layer(intervals, means, points).properties(width="container", autosize=FIT)


def doses(colours: dict[str, str], metric: str) -> Chart:
    """Score over dose: the mean of each method with its interval, and one dot per target."""
    x = alt.X("dose:O", title="dose: similar samples trained on", axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title=metric)
    beside = alt.XOffset("state:N", sort=list(colours))
    names = [name for name in colours if name != PLACEBO]
    legend = alt.Legend(title=None, orient="bottom", columns=3, symbolSize=80)
    scale = alt.Scale(domain=names, range=[colours[name] for name in names])
    colour = alt.Color("state:N", scale=scale, legend=legend)
    looks = [_look(name) for name in names]
    shape = alt.Shape(
        "state:N", scale=alt.Scale(domain=names, range=[s for s, _ in looks]), legend=legend
    )
    dash = alt.StrokeDash(
        "state:N", scale=alt.Scale(domain=names, range=[d for _, d in looks]), legend=legend
    )
    points = (
        alt.Chart(alt.NamedData("points"), name="targets")
        .mark_point(size=32, opacity=0.35, **DOT)
        .encode(x=x, y=y, xOffset=beside, color=colour, shape=shape, tooltip="told:N",
                description="told:N")
    )  # fmt: skip
    base = alt.Chart(alt.NamedData("lines")).encode(x=x, xOffset=beside, color=colour)
    lines = base.mark_line(opacity=0.7).encode(y="mean:Q", strokeDash=dash)
    ends = base.mark_rule().encode(y="lower:Q", y2="upper:Q")
    means = base.mark_point(size=70, filled=True, opacity=1).encode(
        y="mean:Q", shape=shape, tooltip="told:N"
    )
    return alt.layer(lines, ends, means, points).properties(
        width="container", autosize=FIT, height=340
    )


def _look(state: str) -> tuple[str, list[int]]:
    """Marker and dash of each method by its regulariser, and of its variants."""
    method, _, variant = state.partition("+")
    if variant or state in BEFORE.values():
        return ("cross" if variant else "circle"), [1, 3]
    _, marker, line = method_style(method)
    return SHAPES[marker], DASHES[line]


def rows(tables: StudyTables) -> dict[str, dict[str, Any]]:
    """Data of the charts of levels and doses, by role: means of states, scores of targets."""
    found: dict[str, dict[str, Any]] = {}
    if not len(tables.scores):
        return found
    for role in ("target", "similar"):
        if role not in set(tables.scores["role"].unique().to_pylist()):
            continue
        means = dose_response(tables.scores, tables.metrics[0], role)
        each = by_target(tables.scores, tables.metrics[0], role)
        by = ["model", "state", "dose", "target_index"]
        points = each.groupby(by).mean().rename("value").reset_index()
        points = points[points["state"] != PLACEBO].rename(columns={"target_index": "target"})
        found[role] = {
            "means": _columns(means, ["model", "state", "dose", "mean", "lower", "upper", "n"]),
            "points": _columns(
                points.astype({"target": int}), ["model", "state", "dose", "target", "value"]
            ),
        }
    return found


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, list[Any]]:
    """A table by columns, which is shorter in a file."""
    floats = frame[list(names)].select_dtypes("float").columns
    return {
        name: [number(v) if name in floats else v for v in frame[name].tolist()] for name in names
    }


def _colour(colours: dict[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("state:N", scale=scale, legend=None)
