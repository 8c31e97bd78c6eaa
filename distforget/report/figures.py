"""The paper's figures for text: functions from tables to matplotlib figures.

Which number of the paper is drawn by which function is in `figure_numbers.py`. A cell that failed
or was not run is marked so, and never drawn as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distforget.analysis.comparisons import Experiment, own_targets
from distforget.method_choice import PLACEBO
from distforget.metrics import CHOICE_ACCURACY
from distforget.report.figure_style import (
    QUANTITIES,
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
from distforget.report.study_tables import CELL, NothingToShowError, StudyTables
from distforget.report.words import method_name


def differences_by_target(
    tables: StudyTables, model: str, title: str, experiments: Sequence[Experiment]
) -> Figure:
    """Bars of a model's differences, one bar per target (mean over seeds), one panel per method.

    Args:
        experiments: of one kind and dose; a series each.

    Raises:
        NothingToShowError: no method of the kind is planned, or not at the dose.
    """
    first = experiments[0]
    dose = tables.doses[-1] if first.dose == "all" else 0
    if dose not in tables.doses or (first.dose == "all" and dose == 0):
        missing = "similar samples in the data" if first.dose == "all" else "dose 0"
        raise NothingToShowError(f"the study has no models with {missing}")
    if first.quantity == "dose-dose" and 0 not in tables.doses:
        raise NothingToShowError("the study has no models with dose 0")
    methods = tables.methods(model, first.variant)
    if not methods:
        raise NothingToShowError(f"the study plans no {first.variant} cells for {model}")
    figure, made = panels(len(methods), 1.3)
    series = [(e, _of(tables.differences, e, dose, model)) for e in experiments]
    compared = [0, dose] if first.quantity == "dose-dose" else [dose]
    used: dict[str, Any] = {
        QUANTITIES[e.quantity][1]: Patch(color=QUANTITIES[e.quantity][0]) for e in experiments
    }
    counts = []
    for i, (axes, (method, variant)) in enumerate(zip(made, methods, strict=True)):
        rows = [(e, of[(of["method"] == method) & (of["variant"] == variant)]) for e, of in series]
        states = tables.states(model, method, variant, compared)
        used |= _bars(axes, rows, states, tables.targets)
        drawn = rows[0][1]
        shown = drawn["unlearned"].unique()
        diverged = drawn.loc[drawn["diverged"], "unlearned"].nunique()
        counts.append(len(shown))
        said = targets_said(states, shown, diverged)
        head(axes, f"({i + 1}) {method_name(method, variant)}", said)
        axes.set_xlim(0.3, tables.targets + 0.7)
        axes.axhline(0, color="black", linewidth=0.6)
        if tables.targets <= 10:
            axes.set_xticks(range(1, tables.targets + 1))
    outer_labels(made, min(len(methods), 2), "index of target", "difference of KM")
    few = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])
    versus = " against dose 0" if first.quantity == "dose-dose" else ""
    asked = "the target" if first.role == "target" else "its similar samples (mean over them)"
    caption = (
        f"n = {few} of {tables.targets} targets per method. Model {model}, dose {dose}{versus} "
        f"(similar samples of each target trained on); asked: {asked} after unlearning the target. "
        f"{tables.about}"
    )
    return finish(figure, f"{title}: {model}", caption, used)


def schemes_compared(tables: StudyTables, model: str) -> Figure:
    """KM of similar samples after the plain method and its enhanced forms, one panel per method.

    Raises:
        NothingToShowError: no enhanced cells are planned for the model.
    """
    enhanced = [*tables.methods(model, "enhanced"), *tables.methods(model, "low")]
    if not enhanced:
        raise NothingToShowError(f"the study plans no enhanced cells for {model}")
    dose = tables.doses[-1]
    after = own_targets(tables.scores.to_pandas().query("metric == @tables.metric"))
    after = after.query("model == @model and dose == @dose and role == 'similar'")
    each = after.groupby(["method", "variant", "unlearned"])["value"].mean()
    done = {(method, variant) for method, variant, _ in each.index}
    methods = list(dict.fromkeys(method for method, _ in enhanced))
    figure, made = panels(len(methods), 1.9, share_x=False)
    used: dict[str, Any] = {}
    levels = tables.levels(model, dose, "similar")
    for axes, method in zip(made, methods, strict=True):
        variants = [v for m, v in tables.methods(model) if m == method and v != PLACEBO]
        colour, marker, _ = method_style(method)
        for x, variant in enumerate(variants):
            if (method, variant) not in done:
                axes.text(x, 0.5, "no results", ha="center", rotation=90, fontsize=6)
                continue
            values = each.loc[(method, variant)]
            spread = 0.3 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
            axes.scatter(x + spread, values, s=7, marker=marker, color=colour, alpha=0.4, lw=0)
            axes.plot([x - 0.25, x + 0.25], [values.mean()] * 2, color=colour, label=variant)
            axes.text(x, 1.02, f"n = {len(values)}", ha="center", fontsize=6, color="#555555")
        for name, level in levels.items():
            axes.axhline(level, color=STATES[name], linestyle=":", linewidth=0.8)
            used[name] = Line2D([], [], color=STATES[name], linestyle=":", linewidth=0.8)
        axes.set_title(method, loc="left", pad=10)
        axes.set_xticks(range(len(variants)), variants)
    made[0].set_ylim(-0.05, 1.1)
    outer_labels(made, min(len(methods), 2), "scheme", "KM of similar samples")
    used["a target's similar samples"] = Line2D([], [], ls="", marker="o", ms=3, color="#333333")
    used["mean over targets"] = Line2D([], [], color="#333333")
    caption = (
        f"n = targets done of {tables.targets}. Model {model}, dose {dose}. In the paper this "
        f"number is a sketch of both schemes; here is what was measured. {tables.about}"
    )
    return finish(figure, f"Enhanced schemes: {model}", caption, used)


def utility_compared(tables: StudyTables, model: str) -> Figure:
    """Share of multiple-choice questions that are answered correctly after each method.

    Raises:
        NothingToShowError: no model state was asked such questions.
    """
    asked = tables.scores.to_pandas().query("metric == @CHOICE_ACCURACY and model == @model")
    if asked.empty:
        raise NothingToShowError(f"the study asks {model} no questions of utility")
    dose = tables.doses[-1]
    after = asked.query("phase == 'post_unlearn' and dose == @dose")
    each = after.groupby(["method", "variant", "unlearned"])["value"].mean()
    methods = [pair for pair in tables.methods(model) if pair[1] != PLACEBO]
    figure, (axes,) = panels(1, 0.19 * len(methods) + 0.5, wide=True)
    used: dict[str, Any] = {}
    for name, level in tables.levels(model, dose, "utility", CHOICE_ACCURACY).items():
        used[name] = axes.axvline(level, color=STATES[name], linestyle=":", linewidth=0.8)
    if tables.chance == tables.chance:
        used["guessing"] = axes.axvspan(0, tables.chance, color="#EEEEEE", linewidth=0)
    done = {(method, variant) for method, variant, _ in each.index}
    for y, pair in enumerate(methods):
        if pair not in done:
            where = axes.get_yaxis_transform()  # x: of the panel's width
            axes.text(0.5, y, "no results", transform=where, ha="center", va="center", fontsize=6)
            continue
        colour, marker, _ = method_style(pair[0])
        values = each.loc[pair]
        axes.scatter(values, [y] * len(values), s=7, marker=marker, color=colour, alpha=0.4, lw=0)
        axes.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=colour)
        axes.annotate(
            f"{values.mean():.2f}, n = {len(values)}", (1, y), xytext=(2, 0), va="center",
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=6,
            annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), [method_name(*pair) for pair in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlim(
        0, min(1, 1.3 * asked.groupby([*CELL, "phase"], dropna=False)["value"].mean().max())
    )
    axes.set_xlabel("share of questions answered right")
    used["after unlearning a target"] = Line2D([], [], ls="", marker="o", ms=3, color="#333333")
    used["mean over targets"] = Line2D([], [], color="#333333")
    caption = (
        f"n = targets done of {tables.targets}; {asked['sample_id'].nunique()} multiple-choice "
        f"questions that no model was trained on, the same for all. Model {model}, dose {dose}. "
        f"{tables.about_of(CHOICE_ACCURACY)}"
    )
    return finish(figure, f"Utility: {model}", caption, used)


def _of(differences: pd.DataFrame, experiment: Experiment, dose: int, model: str) -> pd.DataFrame:
    """Differences of an experiment for one model and dose."""
    return differences[
        (differences["experiment"] == experiment.name)
        & (differences["quantity"] == experiment.quantity)
        & (differences["role"] == experiment.role)
        & (differences["dose"] == dose)
        & (differences["model"] == model)
    ]


def _bars(
    axes: Axes,
    series: Sequence[tuple[Experiment, pd.DataFrame]],
    states: pd.Series[str],
    targets: int,
) -> dict[str, Any]:
    """Draw a method's differences, and a mark for each target that has none.

    Args:
        states: of each planned target's cells: done, failed or not run.
        targets: planned in the study, for the width of bars.

    Returns:
        What was drawn, by name, for the legend.
    """
    used: dict[str, Any] = {}
    width = min(0.84 / len(series), targets / 24)
    for k, (experiment, rows) in enumerate(series):
        colour, name = QUANTITIES[experiment.quantity]
        of_targets = rows.groupby("unlearned").agg(
            mean=("difference", "mean"),
            low=("difference", "min"),
            high=("difference", "max"),
            diverged=("diverged", "any"),
        )
        x = of_targets.index.to_numpy() + (k - (len(series) - 1) / 2) * width
        bars = axes.bar(x, of_targets["mean"], width, color=colour, label=name)
        used |= mark_diverged(bars, of_targets["diverged"].tolist())
        if rows["seed"].nunique() > 1:
            lines = axes.vlines(x, of_targets["low"], of_targets["high"], "black", linewidth=0.6)
            used["least to largest of the seeds"] = lines
    missing = states[~states.index.isin(series[0][1]["unlearned"])]
    used |= mark_missing(axes, missing)
    if len(missing) == len(states):
        axes.text(0.5, 0.75, "no results", transform=axes.transAxes, ha="center", color="#555555")
    return used
