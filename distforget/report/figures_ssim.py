"""Bar charts of SSIM before and after unlearning, beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distforget.report.figure_style import (
    STATES,
    finish,
    head,
    mark_diverged,
    mark_missing,
    method_style,
    outer_labels,
    panels,
    targets_said,
)
from distforget.report.image_panels import (
    BEFORE,
    CONTROLS,
    NULL,
    SSIM,
    Chosen,
    Setting,
    check_settings,
    chosen_methods,
    image_scores,
    letter,
    scheme_name,
)
from distforget.report.study_tables import NothingToShowError, StudyTables

FEW = 10
"""With more targets there is no room for a dot and a number per sample."""
BEFORE_NAME = "before unlearning"


def ssim_before_and_after(
    tables: StudyTables, model: str, title: str, settings: Sequence[Setting], chosen: Chosen
) -> Figure:
    """Bars of SSIM: remaining samples, each target (or its similar samples), never-trained ones.

    One panel per method and setting: before unlearning, then after it, with a bar a
    scheme where more than the target is unlearned. Source: paper figures 7, 9, 15, 27, 30, 32, 34,
    36; never-trained samples and nulls are added.

    Raises:
        NothingToShowError: no such cells are planned, or SSIM is not scored.
    """
    check_settings(tables, settings)
    methods = chosen_methods(tables, model, chosen)
    found = [image_scores(tables, model, setting) for setting in settings]
    if not any(len(scores) for scores in found):
        raise NothingToShowError(f"no {SSIM} of {model} before unlearning or after it")
    cases = [(m, k) for m in methods for k in range(len(settings))]
    across = 2 if tables.targets <= FEW else 1
    figure, made = panels(len(cases), 1.7, columns=across, wide=across == 1)
    bars: dict[str, Any] = {BEFORE_NAME: Patch(color=STATES[BEFORE_NAME])}
    marks: dict[str, Any] = {}
    counts = []
    for i, (axes, (method, k)) in enumerate(zip(made, cases, strict=True)):
        names = {
            (method, variant): f"after: {scheme_name(tables, method, variant, chosen)}"
            for variant in methods[method]
        }
        drawn, shown = _panel(axes, tables, model, settings[k], found[k], list(names), letter(i))
        marks |= drawn
        counts += shown
        for place, name in enumerate(names.values()):
            shade, edge = _shade(method, place, len(names)), method_style(method)[0]
            bars[name] = Patch(facecolor=shade, edgecolor=edge, linewidth=0.4)
    made[0].set_ylim(min(0, *(axes.dataLim.y0 for axes in made)), 1.02)
    _name_samples(made, tables)
    outer_labels(made, min(len(cases), across), "index of target", "SSIM")
    said = _means_said(found)
    if chosen == "enhanced":
        said += _kept_said(tables, model, settings[-1], methods)
    few = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
    caption = (
        f"n = {few} of {tables.targets} targets in each series after unlearning. Model {model}; "
        f"dose: similar samples of each target trained on. {said} {tables.about}"
    )
    return finish(figure, f"{title}: {model}, {tables.of_images.dataset}", caption, bars | marks)


def _panel(
    axes: Axes,
    tables: StudyTables,
    model: str,
    setting: Setting,
    scores: pd.DataFrame,
    states: Sequence[tuple[str, str]],
    lettered: str,
) -> tuple[dict[str, Any], list[int]]:
    """Draw a method's bars of one setting.

    Returns:
        Marks that were drawn, by name; targets with a bar after unlearning, by state.
    """
    method = states[0][0]
    dose = setting.number(tables)
    name = f"{lettered} {method}: {setting.said(tables)}"
    axes.set_xlim(-0.7, tables.targets + 1.7)
    if dose is None:
        axes.set_title(name, loc="left")
        axes.text(0.5, 0.5, "no such models in the study", transform=axes.transAxes, ha="center")
        return {}, []
    placed = scores.assign(x=scores["target"].where(scores["role"] != "unseen", tables.targets + 1))
    series = [BEFORE, *states]
    width = min(0.84 / len(series), 0.4)
    used: dict[str, Any] = {}
    said, counts = "", []
    for k, state in enumerate(series):
        shift = (k - (len(series) - 1) / 2) * width
        mine = placed[(placed["method"] == state[0]) & (placed["variant"] == state[1])]
        colour = STATES[BEFORE_NAME] if state == BEFORE else _shade(method, k - 1, len(states))
        bars = mine[mine["metric"] == SSIM].groupby("x")["value"].mean()
        edge = STATES[BEFORE_NAME] if state == BEFORE else method_style(method)[0]
        drawn = axes.bar(
            bars.index + shift, bars, width, color=colour, label=" ".join(state).strip(),
            edgecolor=edge, linewidth=0.4,
        )  # fmt: skip
        used |= _details(axes, mine, shift, width, tables.targets <= FEW)
        if state == BEFORE:
            continue
        planned = tables.states(model, *state, [dose])
        gone = _diverged(tables, model, dose, state)
        used |= mark_diverged(drawn, [x in gone for x in bars.index])
        shown = [x for x in bars.index if 0 < x <= tables.targets]
        missing = planned[~planned.index.isin(shown)]
        used |= mark_missing(axes, missing, shift)
        counts.append(len(shown))
        part = targets_said(planned, shown, len(gone & set(shown)))
        said = part if not said or part == said else f"{said}; {part}"
    if scores.empty:
        axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center", color="#555555")
    head(axes, name, said)
    return used, counts


def _diverged(tables: StudyTables, model: str, dose: int, state: tuple[str, str]) -> set[int]:
    """Targets with a cell that diverged."""
    cells = tables.outcomes.query("model == @model and dose == @dose and diverged")
    mine = cells["method"].eq(state[0]) & cells["variant"].eq(state[1])
    return set(cells.loc[mine, "unlearned"])


def _details(
    axes: Axes, mine: pd.DataFrame, shift: float, width: float, roomy: bool
) -> dict[str, Any]:
    """Draw nulls, single samples and the range of seeds over a series of bars."""
    used: dict[str, Any] = {}
    values = mine[mine["metric"] == SSIM]
    seeds = values.groupby(["x", "seed"])["value"].mean().groupby("x").agg(["min", "max", "size"])
    seeds = seeds[seeds["size"] > 1]
    if len(seeds):
        axes.vlines(seeds.index + shift, seeds["min"], seeds["max"], "#777777", linewidth=0.8)
        used["least to largest of the seeds"] = Line2D([], [], color="#777777", linewidth=0.8)
    samples = values.groupby(["x", "sample_id"])["value"].mean()
    several = samples[samples.groupby("x").transform("size") > 1].reset_index()
    if roomy and len(several):
        of_bar = several.groupby("x")
        size = of_bar["value"].transform("size")
        share = (of_bar.cumcount() + 0.5) / size - 0.5
        dots = np.where(size > 30, 1.5, 4)
        look: dict[str, Any] = {"color": "#BBBBBB", "edgecolor": "black", "linewidth": 0.3}
        axes.scatter(several["x"] + shift + 0.7 * width * share, several["value"], dots, **look)
        used["one sample of a mean"] = Line2D(
            [], [], ls="", marker="o", ms=2.5, color="#BBBBBB", mec="black", mew=0.3
        )
    nulls = mine[mine["metric"] == NULL].groupby("x")["value"].mean()
    if len(nulls):
        mark: dict[str, Any] = {"marker": "D", "color": "white", "edgecolor": "black"}
        mark |= {"s": 12 if roomy else 3, "linewidth": 0.6, "label": NULL}
        axes.scatter(nulls.index + shift, nulls, zorder=4, **mark)
        used["null (never trained, same class)"] = Line2D(
            [], [], ls="", marker="D", ms=3, color="white", mec="black", mew=0.6
        )
    return used


def _shade(method: str, k: int, count: int) -> tuple[float, float, float]:
    """Colour of a method's k-th scheme: the lighter, the more is unlearned."""
    light = 0.75 * k / max(count - 1, 1)
    red, green, blue = (1 - (1 - c) * (1 - light) for c in to_rgb(method_style(method)[0]))
    return red, green, blue


def _name_samples(made: Sequence[Axes], tables: StudyTables) -> None:
    """Name the places on the X axis: remaining, targets with their sample number, never trained."""
    last = tables.targets + 1
    if tables.targets <= FEW:
        rows = tables.of_images.samples.select(["role", "target_index", "sample_id"]).to_pandas()
        ids = rows[rows["role"] == "target"].set_index("target_index")["sample_id"]
        names = {x: f"{x}\n(#{ids[x]})" for x in range(1, last)}
        names = {0: CONTROLS["other"], **names, last: CONTROLS["unseen"].replace(" ", "\n")}
    else:
        names = {0: "R", **{x: str(x) for x in range(10, last - 2, 10)}, last: "N"}
    for axes in made:
        axes.set_xticks(list(names), list(names.values()))


def _means_said(found: Sequence[pd.DataFrame]) -> str:
    """Says what the bars are means of."""
    rows = pd.concat(found)
    of_role = rows.groupby("role")["sample_id"].nunique()
    said = []
    if "similar" in of_role:
        each = rows[rows["role"] == "similar"].groupby("target")["sample_id"].nunique().max()
        said.append(f"Similar: mean of {each} similar samples of each target.")
    if "other" in of_role:
        said.append(f"Remaining (R): mean of {of_role['other']} samples that stay in the data.")
    else:
        said.append("No remaining samples were asked.")
    if "unseen" in of_role:
        said.append(f"Never trained (N): mean of {of_role['unseen']} samples.")
    else:
        said.append("No never-trained samples were asked.")
    return " ".join(said)


def _kept_said(
    tables: StudyTables, model: str, setting: Setting, methods: Mapping[str, Sequence[str]]
) -> str:
    """What unlearning more samples costs: how sure the model is of never-trained samples' class."""
    scores = tables.scores.to_pandas()
    scores = scores[(scores["metric"] == "label_probability") & (scores["role"] == "unseen")]
    dose = setting.number(tables)
    scores = scores[(scores["model"] == model) & (scores["dose"] == dose)]
    before = scores.loc[scores["phase"] == "pre_unlearn", "value"]
    after = scores.groupby(["method", "variant"])["value"].mean()
    said = [
        f"{scheme_name(tables, method, variant, 'enhanced')} {after[method, variant]:.2f}"
        for method, variants in methods.items()
        for variant in variants
        if (method, variant) in after.index
    ]
    if before.empty or not said:
        return ""
    return (
        f" Mean probability of never-trained samples' class: before {before.mean():.2f}; "
        f"{'; '.join(said)}."
    )
