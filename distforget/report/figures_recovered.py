"""Figures of reconstructed images: originals, reconstructions before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from distforget.analysis.comparisons import own_targets
from distforget.report.figure_style import WIDTH, finish
from distforget.report.image_panels import (
    CONTROLS,
    NULL,
    SSIM,
    Chosen,
    Setting,
    check_settings,
    chosen_methods,
    letter,
    scheme_name,
)
from distforget.report.pictures import pixels_of, show_pixels
from distforget.report.study_tables import NothingToShowError, StudyTables

ACROSS = 8
"""Number of targets that fit side by side, over all settings."""
SMALL = 5.5
"""Type size, in points, of the text under a picture."""
LABEL, HEADING = 0.3, 0.45
"""Space, in inches, beside and above the pictures of a setting."""
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class _Column:
    """A sample with its pictures from top to bottom; text stands for a missing one."""

    name: str
    shown: Sequence[Row | str]


def recovered_before_and_after(
    tables: StudyTables, model: str, title: str, settings: Sequence[Setting], chosen: Chosen
) -> Figure:
    """Rows: the original, recovered before unlearning, and after it with each method.

    Settings stand side by side; the columns of each are a remaining sample, one sample a target
    and a never-trained one. Under a recovered picture stand its SSIM and its null. Source: paper
    figures 8, 10, 16, 28, 29, 31, 33, 35, 37; never-trained samples and nulls are added.

    Raises:
        NothingToShowError: no such cells are planned, or nothing was recovered.
    """
    check_settings(tables, settings)
    methods = chosen_methods(tables, model, chosen)
    states = [(method, variant) for method, variants in methods.items() for variant in variants]
    repetition = int(tables.planned["seed"].min())
    most = ACROSS // len(settings)
    blocks = [_columns(tables, model, setting, states, repetition, most) for setting in settings]
    if not any(blocks):
        raise NothingToShowError(f"nothing was recovered from {model}")
    rows = [
        "original",
        "before",
        *(f"after: {scheme_name(tables, *state, chosen)}" for state in states),
    ]
    figure = _grid(blocks, rows, [setting.said(tables) for setting in settings])
    first = f"the first {most} of " if tables.targets > most else ""
    several = tables.planned["seed"].nunique() > 1
    caption = (
        f"n = {first}{tables.targets} targets. Under a picture: SSIM with the original, and in "
        f"brackets its null, the mean SSIM that never-trained samples of its class reach. Controls "
        f"(remaining, never trained): after unlearning the first target that is done. Model "
        f"{model}{f', repetition {repetition}' if several else ''}. {tables.about}"
    )
    return finish(figure, f"{title}: {model}, {tables.of_images.dataset}", caption, {})


def _columns(
    tables: StudyTables,
    model: str,
    setting: Setting,
    states: Sequence[tuple[str, str]],
    repetition: int,
    most: int,
) -> list[_Column]:
    """Columns of one setting; empty if nothing was recovered or the study lacks the models."""
    dose = setting.number(tables)
    pictures = _pictures(tables, model, dose, repetition)
    before = pictures[pictures["phase"] == "pre_unlearn"]
    if before.empty:
        return []
    originals = tables.of_images.samples.to_pandas().set_index("sample_id", drop=False)
    after = pictures[pictures["phase"] == "post_unlearn"]
    cells = tables.outcomes.query("model == @model and dose == @dose and seed == @repetition")
    asked = before.sort_values("sample_id").drop_duplicates(["role", "target_index"])
    family = asked[asked["role"] == setting.role]
    family = family[family["target_index"] <= min(tables.targets, most)]
    chosen = [
        asked[asked["role"] == "other"],
        family.sort_values("target_index"),
        asked[asked["role"] == "unseen"],
    ]
    found = []
    for row in pd.concat(chosen).to_dict("records"):
        sample, role = row["sample_id"], row["role"]
        mine = after[after["sample_id"] == sample]
        mine = mine if role in CONTROLS else own_targets(mine)
        shown: list[Row | str] = [originals.loc[sample].to_dict(), row]
        for method, variant in states:
            here = cells[(cells["method"] == method) & (cells["variant"] == variant)]
            if role not in CONTROLS:
                here = here[here["unlearned"] == row["target_index"]]
            of_state = mine[(mine["method"] == method) & (mine["variant"] == variant)]
            shown.append(_picture(of_state, here))
        name = CONTROLS.get(role) or f"target {row['target_index']:.0f}"
        name = f"similar of {row['target_index']:.0f}" if role == "similar" else name
        found.append(_Column(f"{name}\n#{sample}", shown))
    return found


def _pictures(tables: StudyTables, model: str, dose: int | None, repetition: int) -> pd.DataFrame:
    """Recovered pictures of a model, dose and repetition."""
    found = tables.of_images.reconstructions.to_pandas()
    mine = (found["model"] == model) & (found["dose"] == dose) & (found["seed"] == repetition)
    chosen: pd.DataFrame = found[mine]
    return chosen


def _picture(found: pd.DataFrame, cells: pd.DataFrame) -> Row | str:
    """The first picture, or the reason why there is none."""
    if found.empty:
        states = set(cells["state"])
        if not states:
            return "not planned"
        return "failed" if states & {"failed", "blocked", "lost"} else "not run"
    row = found.sort_values("unlearned").iloc[0].to_dict()
    diverged = cells.loc[cells["unlearned"] == row["unlearned"], "diverged"].any()
    return {**row, "diverged": bool(diverged)}


def _grid(blocks: Sequence[Sequence[_Column]], rows: Sequence[str], heads: Sequence[str]) -> Figure:
    """Draw the pictures of all settings, lettered from left to right and top to bottom."""
    counts = [max(len(columns), 3) for columns in blocks]
    ratios = [part for count in counts for part in (0.35, *[1] * count)][1:]
    side = min(0.8, (0.98 * WIDTH - LABEL * len(blocks)) / sum(ratios))
    width = max(side * sum(ratios) + LABEL * len(blocks) + 0.1, 0.6 * WIDTH)
    height = len(rows) * (side + 0.12) + HEADING
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure = Figure(figsize=(width, height), layout=layout)
    made = figure.subplots(len(rows), len(ratios), squeeze=False, width_ratios=ratios)
    for axes in made.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    start = 0
    for k, (columns, count) in enumerate(zip(blocks, counts, strict=True)):
        first = made[0, start]
        for y, name in enumerate(rows):
            label = f"{letter(y * len(blocks) + k)} {name}".replace(": ", "\n").replace(", ", ",\n")
            made[y, start].set_ylabel(label, fontsize=6.5)
        first.annotate(
            heads[k], (0, 1), xycoords="axes fraction", xytext=(0, 24), fontsize=7.5,
            textcoords="offset points", annotation_clip=False,
        ).set_in_layout(False)  # fmt: skip
        if not columns:
            missing = first.text(0, 0.5, "no such models in the study, or not done", fontsize=6.5)
            missing.set_in_layout(False)
        for x, column in enumerate(columns):
            made[0, start + x].set_title(f"\n\n{column.name}", fontsize=6.5 if side > 0.7 else 5.5)
            for y, shown in enumerate(column.shown):
                _show(made[y, start + x], shown)
        start += count + 1
    return figure


def _show(axis: Axes, shown: Row | str) -> None:
    """Draw a picture with its SSIM and null below, or say why there is none."""
    if isinstance(shown, str):
        axis.text(0.5, 0.5, shown, ha="center", va="center", fontsize=6.5, transform=axis.transAxes)
        axis.set_box_aspect(1)
        return
    show_pixels(axis, pixels_of(shown))
    if SSIM not in shown:
        return
    null = f" ({shown[NULL]:.2f})" if shown[NULL] == shown[NULL] else ""
    diverged = "\ndiverged" if shown.get("diverged") else ""
    axis.set_xlabel(f"{shown[SSIM]:.2f}{null}{diverged}", fontsize=SMALL, labelpad=1.5)
