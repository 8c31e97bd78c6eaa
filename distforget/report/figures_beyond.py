"""Figures beyond the paper: a forest plot of verdicts, dose-response, memory and damage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distforget.analysis.comparisons import Experiment, kind_of, other_side, own_targets
from distforget.analysis.doses import dose_response, slopes
from distforget.analysis.verdicts import Verdict, Word
from distforget.method_choice import PLACEBO
from distforget.report.figure_style import (
    PLACEBO_BAND,
    STATES,
    finish,
    head,
    method_style,
    outer_labels,
    panels,
)
from distforget.report.study_tables import CELL, NothingToShowError, StudyTables
from distforget.report.words import claim_of, interval, method_name

WORDS: dict[Word, tuple[str, bool]] = {
    "supported": ("o", True),
    "undecided": ("o", False),
    "contradicted": ("X", True),
}
"""Marker of each verdict, and whether it is filled."""

SCHEMES = ("enhanced", "low")
"""Kinds of variants that are drawn apart from their plain method."""


def verdict_forest(tables: StudyTables, experiment: Experiment) -> Figure:
    """Forest plot of a claim: estimates and 95 % intervals, one panel per model.

    Raises:
        NothingToShowError: no cell of the claim is done.
    """
    metric = experiment.metric or tables.metrics[0]
    attacked = experiment.quantity == "post-unattacked"
    every = tables.every_verdict if attacked else tables.verdicts
    found = [v for v in every if (v.experiment, v.metric) == (experiment, metric)]
    if not found:
        raise NothingToShowError("no cells that the claim compares are done")
    planned = dict.fromkeys(pair for model in tables.paths for pair in tables.methods(model))
    pairs = [
        (method, variant)
        for method, variant in planned
        if experiment.is_about(variant)
        and (other := other_side(experiment, method, variant)) in planned
        and not (experiment.quantity == "post-retrained" and other == (method, variant))
    ]
    states = dict.fromkeys((v.attack, v.dose) for v in found)
    rows = [(*state, *pair) for state in states for pair in pairs]
    models = [name for name in tables.paths if set(pairs) & set(tables.methods(name))]
    margin = experiment.margin or tables.margin
    figure, made = panels(len(models), 0.17 * len(rows) + 0.35, columns=3)
    several = len({v.dose for v in found}) > 1
    names = [
        method_name(method, variant) + f", dose {dose}" * several + f", {attack}" * attacked
        for attack, dose, method, variant in rows
    ]
    for axes, model in zip(made, models, strict=True):
        axes.axvspan(-margin, margin, color="#EEEEEE", linewidth=0)
        axes.axvline(0, color="black", linewidth=0.6)
        mine = {(v.attack, v.dose, v.method, v.variant): v for v in found if v.model == model}
        for y, row in enumerate(rows):
            if row in mine:
                _line(axes, y, mine[row])
            elif row[2:] in tables.methods(model):
                axes.text(0, y, "no results", ha="center", va="center", fontsize=6)
        axes.set_title(model, loc="left")
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
    score = tables.score if metric == tables.metric else metric
    outer_labels(made, min(len(models), 3), f"difference of {score}", "")
    shown: dict[str, Any] = {
        word: Line2D(
            [], [], ls="", marker=marker, color="#333333", mfc="#333333" if filled else "white"
        )
        for word, (marker, filled) in WORDS.items()
    } | {f"less than {margin:g}, what matters": Patch(color="#EEEEEE")}
    if any(len(v.seed_means) > 1 for v in found):
        shown["a seed's mean"] = Line2D([], [], linestyle="", marker="|", color="#333333")
    doses = ", ".join(map(str, sorted({v.dose for v in found})))
    title = f"{experiment.title[0].upper()}{experiment.title[1:]} ({claim_of(experiment)})"
    caption = (
        f"Mean over targets and its 95 % interval (targets and seeds drawn again); numbers: cells "
        f"compared of planned, behind the targets if there are several seeds; div.: diverged. "
        f"Verdicts: 5 % over all lines (Holm). Dose {doses}. {tables.about_of(metric)}"
    )
    return finish(figure, title, caption, shown)


def doses_and_knowledge(tables: StudyTables, model: str, role: str) -> Figure:
    """Dose-response of a model: its score after unlearning over dose, one panel per method.

    Raises:
        NothingToShowError: the study has two doses or fewer.
    """
    if len(tables.doses) < 3:
        raise NothingToShowError(f"the study has {len(tables.doses)} doses; a curve takes 3")
    found = dose_response(tables.scores, tables.metric, role)
    found = found[found["model"] == model].set_index(["state", "dose"])
    sloped = slopes(tables.scores, tables.metric, role)
    of_states = sloped[sloped["model"] == model].set_index("state").to_dict("index")
    methods = [pair for pair in tables.methods(model) if pair[1] != PLACEBO]
    figure, made = panels(len(methods), 1.4)
    position = {dose: np.log2(1 + dose) for dose in tables.doses}
    used: dict[str, Any] = {}
    for i, (axes, (method, variant)) in enumerate(zip(made, methods, strict=True)):
        state = method_name(method, variant)
        used |= _backdrop(axes, found, position)
        axes.set_xticks(list(position.values()), [str(dose) for dose in position])
        if state not in found.index:
            axes.text(0.5, 0.5, "no results", transform=axes.transAxes, ha="center")
            head(axes, f"({i + 1}) {state}", "")
            continue
        rows = found.loc[state]
        colour, marker, line = method_style(method)
        x = np.array([position[dose] for dose in rows.index])
        ends = np.abs(rows[["lower", "upper"]].to_numpy() - rows[["mean"]].to_numpy()).T
        axes.errorbar(
            x, rows["mean"], np.nan_to_num(ends), color=colour, marker=marker, linestyle=line,
            markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2, label=state,
        )  # fmt: skip
        counts = sorted({int(n) for n in rows["n"]})
        told = "-".join(map(str, counts if len(counts) < 3 else [counts[0], counts[-1]]))
        if state in of_states:
            slope = of_states[state]
            known = f" {interval(slope['lower'], slope['upper'])}".rstrip()
            told = f"slope {slope['slope']:+.3f}{known}, n = {told}"
        head(axes, f"({i + 1}) {state}", told)
    outer_labels(made, min(len(methods), 2), "dose (similar samples trained on)", tables.score)
    used["a method: mean, 95 % interval"] = Line2D([], [], color="#333333", marker="o")
    asked = "the target" if role == "target" else "its similar samples (mean over them)"
    caption = (
        f"n = cells per point (targets times seeds) of {tables.targets} targets planned. Model "
        f"{model}; asked: {asked}. Placebo: from the least to the largest score when an unrelated "
        f"sample is unlearned. Slope: rise for each doubling of 1 + dose, mean over targets with "
        f"its 95 % interval. {tables.about}"
    )
    return finish(figure, f"Dose-response, {role}: {model}", caption, used)


def memory_and_damage(tables: StudyTables, model: str) -> Figure:
    """Damage over forgetting: scores of other samples and of the target, one panel per dose.

    Raises:
        NothingToShowError: no cell of the model is done, or none was asked about other samples.
    """
    points = _memory_and_damage(tables, model)
    if points.empty:
        raise NothingToShowError(f"no cells of {model} were asked about other samples")
    doses = tables.doses if len(tables.doses) < 5 else [tables.doses[0], tables.doses[-1]]
    methods = [pair for pair in tables.methods(model) if pair[1] != PLACEBO]
    figure, made = panels(len(doses), 2.9)
    used: dict[str, Any] = {}
    marks: dict[str, Any] = {}
    for axes, dose in zip(made, doses, strict=True):
        here = points[points["dose"] == dose]
        for method, variant in methods:
            mine = here[(here["method"] == method) & (here["variant"] == variant)]
            colour, marker, _ = method_style(method)
            every = axes.scatter(
                mine["target"], mine["other"], s=6, marker=marker, color=colour, alpha=0.3,
                linewidth=0, label=f"{method_name(method, variant)}, cells",
            )  # fmt: skip
            every.set_rasterized(len(mine) > 500)
            gone = mine[mine["diverged"]]
            if len(gone):
                axes.scatter(gone["target"], gone["other"], s=22, marker="x", color=colour)
                marks["a cell that diverged"] = Line2D([], [], ls="", marker="x", color="#333333")
            name = method_name(method, variant)
            enhanced = [v for m, v in methods if m == method and kind_of(v) in SCHEMES]
            look: dict[str, Any] = {"marker": marker, "color": colour, "ls": ""}
            if variant in enhanced:
                look["fillstyle"] = ("none", "left", "top")[enhanced.index(variant) % 3]
            used[name] = Line2D([], [], markersize=6, **look)
            if len(mine):
                axes.plot(
                    mine["target"].mean(), mine["other"].mean(), markersize=7, label=name, **look
                )
        for draw, role in ((axes.axvline, "target"), (axes.axhline, "other")):
            for name, level in tables.levels(model, dose, role).items():
                level_look: dict[str, Any] = {
                    "color": STATES[name],
                    "linestyle": ":",
                    "linewidth": 0.8,
                }
                draw(level, **level_look)
                marks[name] = Line2D([], [], **level_look)
        head(axes, f"dose {dose}", _cells_said(tables, model, dose))
    score = tables.score
    outer_labels(made, min(len(doses), 2), f"{score} of the target (memory)", f"{score} of others")
    caption = (
        f"Large: mean of a method; small: its cells. Best is the corner where the target is as "
        f"before fine-tuning and the others as before unlearning. Model {model}. {tables.about}"
    )
    return finish(figure, f"Memory and damage: {model}", caption, used | marks)


def _line(axes: Axes, y: int, verdict: Verdict) -> None:
    """Draw a verdict's estimate, interval, seeds and counts."""
    colour, _, _ = method_style(verdict.method)
    marker, filled = WORDS[verdict.word]
    face = colour if filled else "white"
    if verdict.low == verdict.low:
        axes.plot([verdict.low, verdict.high], [y, y], color=colour, linewidth=1.2)
    if len(verdict.seed_means) > 1:
        seeds = verdict.seed_means
        axes.plot(seeds, [y] * len(seeds), ls="", marker="|", color="#333333", markersize=4)
    axes.plot(verdict.estimate, y, marker=marker, markersize=4.5, color=colour, mfc=face, ls="")
    diverged = f", {verdict.diverged} div." if verdict.diverged else ""
    targets = f"{verdict.targets}; " if verdict.n > verdict.targets else ""
    axes.annotate(
        f"{targets}{verdict.n} of {verdict.planned}{diverged}",
        (1, y), xycoords=("axes fraction", "data"), xytext=(2, 0), textcoords="offset points",
        va="center", fontsize=5.5, color="#555555", annotation_clip=False,
    )  # fmt: skip


def _backdrop(axes: Axes, found: pd.DataFrame, position: dict[int, float]) -> dict[str, Any]:
    """Draw the placebo band, and lines for before fine-tuning and before unlearning."""
    used: dict[str, Any] = {}
    if PLACEBO in found.index:
        band = found.loc[PLACEBO]
        x = [position[dose] for dose in band.index]
        used[PLACEBO] = axes.fill_between(x, band["low"], band["high"], color=PLACEBO_BAND, lw=0)
    for name, colour in STATES.items():
        if name in found.index:
            rows = found.loc[name]
            x = [position[dose] for dose in rows.index]
            used[name] = axes.plot(x, rows["mean"], color=colour, linestyle=":", linewidth=0.9)[0]
    return used


def _memory_and_damage(tables: StudyTables, model: str) -> pd.DataFrame:
    """One row per finished cell: its target's score, the mean of other samples, divergence."""
    scores = tables.scores.to_pandas()
    scores = scores[(scores["metric"] == tables.metric) & (scores["model"] == model)]
    scores = scores[scores["variant"] != PLACEBO]
    targets = own_targets(scores[scores["role"] == "target"]).groupby(CELL)["value"].mean()
    after = scores[(scores["phase"] == "post_unlearn") & (scores["role"] == "other")]
    others = after.groupby(CELL)["value"].mean()
    both = pd.concat({"target": targets, "other": others}, axis=1, join="inner").reset_index()
    merged: pd.DataFrame = both.merge(tables.outcomes[[*CELL, "diverged"]], on=CELL)
    return merged


def _cells_said(tables: StudyTables, model: str, dose: int) -> str:
    """Says how many cells of a model and dose are done, and why the others are not."""
    cells = tables.outcomes
    cells = cells[(cells["model"] == model) & (cells["dose"] == dose)]
    cells = cells[cells["variant"] != PLACEBO]
    counts = cells["state"].value_counts()
    others = [f", {n} {state}" for state, n in counts.items() if state != "done"]
    return f"{counts.get('done', 0)} of {len(cells)} cells{''.join(others)}"
