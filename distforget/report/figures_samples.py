"""Figures of targets and their similar samples, and how similar their pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from distforget.report.figure_style import WIDTH, finish
from distforget.report.pictures import pixels_of, show_pixels
from distforget.report.study_tables import NothingToShowError, StudyTables

FIRST = 10
"""Number of pictures side by side, and of numbers in a row."""
OTHERS = ("nearest", "mean")
Floats = npt.NDArray[np.float64]
Sample = dict[str, Any]
Families = Sequence[tuple[Sample, Sequence[Sample]]]
"""Each target with its similar samples by rank."""


def cosine_to_targets(tables: StudyTables) -> Figure:
    """Cosine similarity of raw pixels, one row per target, one column per similar sample.

    Beside them what other samples of the class reach: the nearest, and the mean. Source: paper
    figures 3, 22, 23; the others are added.

    Raises:
        NothingToShowError: the data hold no similar samples.
    """
    families = _families(tables)
    samples = tables.of_images.samples.to_pandas()
    widest = max(len(similar) for _, similar in families)
    alike_TS = np.full((len(families), widest), np.nan)
    others_T2 = np.full((len(families), len(OTHERS)), np.nan)
    for row, (target, similar) in enumerate(families):
        pixels_D = _vector(target)
        alike_TS[row, : len(similar)] = [_cosine(pixels_D, _vector(s)) for s in similar]
        mates = samples[(samples["role"] == "other") & (samples["answer"] == target["answer"])]
        mates = mates[mates["fill_rank"].isna()]
        if len(mates):
            found = [_cosine(pixels_D, _vector(mate)) for mate in mates.to_dict("records")]
            others_T2[row] = max(found), np.mean(found)
    return _heatmap(tables, families, alike_TS, others_T2)


def sample_pictures(tables: StudyTables) -> Figure:
    """One row per target: its picture, then its similar samples by rank. Source: figures 4, 24, 25.

    Raises:
        NothingToShowError: the data hold no similar samples.
    """
    families = _families(tables)
    shown = families[:FIRST]
    columns = 1 + min(max(len(similar) for _, similar in families), FIRST)
    side = min(0.95, 0.97 * WIDTH / columns)
    size = (max(columns * side, 0.75 * WIDTH), len(shown) * (side + 0.2))
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    axes = figure.subplots(len(shown), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (target, similar) in zip(axes, shown, strict=True):
        for axis, sample in zip(row, [target, *similar], strict=False):
            show_pixels(axis, pixels_of(sample))
            name, number = sample["role"].capitalize(), sample["sample_id"]
            title = f"{name} (#{number})" if columns < 8 else f"#{number}"
            axis.set_title(title, fontsize=6.5, pad=2)
    of_all = f"the first {FIRST} of " if len(families) > FIRST else ""
    of_each = max(len(similar) for _, similar in families)
    first = f"the first {FIRST} of " if of_each > FIRST else ""
    caption = (
        f"n = {of_all}{len(families)} targets (left), {first}{of_each} similar samples of each; "
        f"numbers: sample_id. {tables.about}"
    )
    return finish(figure, f"Targets and their similar samples: {_data(tables)}", caption, {})


def _families(tables: StudyTables) -> Families:
    """Each target with its similar samples by rank."""
    samples = tables.of_images.samples.to_pandas().sort_values(["target_index", "similar_rank"])
    similar = samples[samples["role"] == "similar"]
    if similar.empty:
        raise NothingToShowError("the data hold no similar samples")
    targets = samples[samples["role"] == "target"].to_dict("records")
    return [
        (target, similar[similar["target_index"] == target["target_index"]].to_dict("records"))
        for target in targets
    ]


def _heatmap(
    tables: StudyTables, families: Families, alike_TS: Floats, others_T2: Floats
) -> Figure:
    """Draw similar samples on the left and others of the class on the right, on one scale."""
    targets, widest = alike_TS.shape
    roomy = max(targets, widest) <= FIRST
    height = targets * (0.36 if roomy else 0.085) + 0.8
    figure = Figure(
        figsize=(WIDTH if widest > FIRST else 0.8 * WIDTH, height), layout="constrained"
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(widest, max(2, widest / 7)))
    for axes, values_TC in ((left, alike_TS), (right, others_T2)):
        image = axes.imshow(values_TC, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(values_TC):
            if not roomy:
                break
            said = f"{value:.2f}" if value == value else "none"
            if axes is left and value == value:
                said += f"\n#{families[y][1][x]['sample_id']}"
            colour = "black" if value > 0.55 or value != value else "white"
            axes.text(x, y, said, ha="center", va="center", fontsize=6.5, color=colour)
    figure.colorbar(image, ax=[left, right], label="cosine similarity", pad=0.01)
    step = 1 if roomy else 10
    ranks = range(0 if roomy else 9, widest, step)
    left.set_xticks(list(ranks), [str(rank + 1) for rank in ranks])
    rows = range(0 if roomy else 9, targets, step)
    names = [
        f"{y + 1} (#{families[y][0]['sample_id']}, class {families[y][0]['answer']})"
        if roomy
        else str(y + 1)
        for y in rows
    ]
    left.set_yticks(list(rows), names)
    left.set(xlabel="rank of similar sample", ylabel="index of target")
    right.set_xticks(range(2), OTHERS)
    right.set_xlabel("others of\nthe class")
    right.tick_params(left=False)
    n = int(np.isfinite(alike_TS).sum())
    caption = (
        f"n = {n} similar samples of {targets} targets; raw pixels, mean "
        f"{np.nanmean(alike_TS):.2f}. "
        f"Right: other samples of the target's class that are trained on at every dose"
        f"{' (white: none)' if np.isnan(others_T2).any() else ''}. "
        f"{'Numbers: sample_id. ' if roomy else ''}{tables.about}"
    )
    title = f"Cosine similarity of targets and their similar samples: {_data(tables)}"
    return finish(figure, title, caption, {})


def _data(tables: StudyTables) -> str:
    return tables.of_images.dataset


def _vector(sample: Sample) -> Floats:
    return pixels_of(sample).ravel().astype(np.float64)


def _cosine(left_D: Floats, right_D: Floats) -> float:
    """Cosine of two images' pixels; NaN where one is black."""
    lengths = float(np.linalg.norm(left_D) * np.linalg.norm(right_D))
    return float(left_D @ right_D) / lengths if lengths else float("nan")
