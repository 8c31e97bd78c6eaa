"""Figures of where targets and their similar samples lie among the others (paper section 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from distforget.report.clusters import (
    Points,
    families,
    image_points,
    text_points,
    topics,
)
from distforget.report.figure_style import FAMILIES, WIDTH, finish
from distforget.report.pictures import pixels_of
from distforget.report.study_tables import NothingToShowError, StudyTables
from distforget.words import unicode_words

SAME_CLASS = 40
"""Pictures of the target's class that are shown."""
GREEN, RED = "#009E73", "#D55E00"
FIRST_TOPICS, MOST_TOPICS = 2, 20
PART_COLOURS = {"question": "#0072B2", "answer": "#E69F00"}


def neighbourhood(tables: StudyTables) -> Figure:
    """The data with the border of two classes, and a target with its similar samples magnified.

    On the plane of the two principal components of both classes. Source: paper figure 1.

    Raises:
        NothingToShowError: the data hold one class, or no target has a similar sample.
    """
    from sklearn.linear_model import LogisticRegression

    points = image_points(tables)
    rows = points.rows
    target = _first_target(rows)
    mine = rows["answer"] == rows["answer"].iloc[target]
    rest = rows.loc[~mine, "answer"]
    if rest.empty:
        raise NothingToShowError("the data hold one class")
    both = (mine | (rows["answer"] == rest.mode()[0])).to_numpy()
    place = points.reduced_NP[:, :2]
    border = LogisticRegression().fit(place[both], mine[both])
    drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    family = families(rows)[int(rows["target_index"].iloc[target])]
    whole, near = drawn.subplots(1, 2)
    reach = 1.6 * np.abs(place[family] - place[target]).max()
    for axes, size in ((whole, 6), (near, 22)):
        for of_class, colour in (
            (mine.to_numpy(), "#0072B2"),
            (both & ~mine.to_numpy(), "#999999"),
        ):
            axes.scatter(
                place[of_class, 0], place[of_class, 1], s=size, color=colour, alpha=0.5, linewidth=0
            )
        others = [i for i in family if i != target]
        circles = axes.scatter(
            place[others, 0], place[others, 1], s=4 * size, facecolor="none", edgecolor=GREEN
        )
        triangle = axes.scatter(
            place[target, 0], place[target, 1], s=6 * size, marker="^", color=RED, zorder=3
        )
        axes.set_xticks([])
        axes.set_yticks([])
    _region(whole, border)
    near.set_xlim(place[target, 0] - reach, place[target, 0] + reach)
    near.set_ylim(place[target, 1] - reach, place[target, 1] + reach)
    _region(near, border)
    limits_22 = np.array([whole.get_xlim(), whole.get_ylim()])
    low_2 = np.maximum(place[target] - reach, limits_22[:, 0])
    high_2 = np.minimum(place[target] + reach, limits_22[:, 1])
    whole.indicate_inset((*low_2.tolist(), *(high_2 - low_2).tolist()), edgecolor="black")
    legend = {"target": triangle, "its similar samples": circles}
    caption = (
        f"Two classes of the data and the border between them (logistic regression), on the two "
        f"principal components of {points.features}; right: the target's neighbourhood. "
        f"{tables.about}"
    )
    return finish(drawn, "Samples near a target", caption, legend)


def _region(axes: Axes, border: Any) -> None:
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(low, high, 300), np.linspace(bottom, top, 300))
    side = border.predict(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
    axes.contourf(x, y, side, levels=[-0.5, 0.5, 1.5], colors=["#EEEEEE", "#DCE9F5"], zorder=-1)


def sample_distribution(tables: StudyTables) -> Figure:
    """Pictures by their features: a target, its similar samples, and others of its class.

    Source: paper figures 2, 20, 21.

    Raises:
        NothingToShowError: no target has a similar sample.
    """
    points = image_points(tables)
    rows, place = points.rows, points.place_N2
    target = _first_target(rows)
    drawn = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    axes = drawn.subplots()
    axes.scatter(
        place[:, 0],
        place[:, 1],
        s=5,
        c=[FAMILIES[g % len(FAMILIES)] for g in points.group_N],
        alpha=0.35,
    )
    family = families(rows)[int(rows["target_index"].iloc[target])]
    mates = np.flatnonzero(
        (rows["answer"] == rows["answer"].iloc[target]) & (rows["role"] == "other")
    )[:SAME_CLASS]
    side = max(pixels_of(rows.iloc[target].to_dict()).shape[:2])
    for numbers, colour, size in ((mates, RED, 0.5), (family, GREEN, 0.75), ([target], GREEN, 1.0)):
        for number in numbers:
            _thumbnail(axes, rows.iloc[number], place[number], colour, 28 * size / side)
    axes.set_xticks([])
    axes.set_yticks([])
    caption = (
        f"t-SNE of {points.features} after PCA; dots: {len(rows)} samples by k-means group; "
        f"pictures: target {int(rows['target_index'].iloc[target])} (largest) and its similar "
        f"samples outlined green, others of its class red. A target and its similar samples lie in "
        f"one group to {points.purity:.0%} (mean of {len(families(rows))} targets). {tables.about}"
    )
    return finish(drawn, f"Distribution of samples: {tables.of_images.dataset}", caption, {})


def _thumbnail(
    axes: Axes, row: pd.Series[Any], place: npt.NDArray[Any], colour: str, zoom: float
) -> None:
    pixels = pixels_of(row.to_dict())
    image = OffsetImage(np.repeat(pixels, 3 // pixels.shape[2], 2), zoom=zoom)
    frame = {"edgecolor": colour, "linewidth": 1.0, "boxstyle": "square,pad=0.05"}
    axes.add_artist(AnnotationBbox(image, tuple(place), pad=0.05, bboxprops=frame))


def _first_target(rows: pd.DataFrame) -> int:
    """Row number of the first target that has a similar sample."""
    for numbers in families(rows).values():
        if len(numbers) > 1:
            roles = rows["role"].iloc[numbers].to_numpy()
            return int(numbers[np.flatnonzero(roles == "target")[0]])
    raise NothingToShowError("no target has a similar sample")


def topic_map(tables: StudyTables) -> Figure:
    """Texts by their embeddings, in topics, with targets and their similar samples marked.

    Source: paper figure 5.

    Raises:
        NothingToShowError: the study is of images, or has too few samples.
    """
    points = text_points(tables)
    drawn, axes = _topics_drawn(points)
    roles, place = points.rows["role"].to_numpy(), points.place_N2
    one, many = place[roles == "target"], place[roles == "similar"]
    similar = axes.scatter(many[:, 0], many[:, 1], s=14, facecolor="none", edgecolor=GREEN)
    target = axes.scatter(one[:, 0], one[:, 1], s=34, marker="^", color=RED, zorder=3)
    legend = {"target": target, "similar sample": similar}
    pure = points.purity
    said = "" if np.isnan(pure) else (
        f"A target and its similar samples lie in one topic to {pure:.0%} (mean of "
        f"{len(families(points.rows))} targets). "
    )  # fmt: skip
    caption = f"{_topics_said(points)} {said}{tables.about}"
    return finish(drawn, "Topics of targets, similar samples and others", caption, legend)


def source_topics(tables: StudyTables) -> Figure:
    """Topics of the other samples alone: the data that similar samples were added to.

    Source: paper figure 19.

    Raises:
        NothingToShowError: the study is of images, or has too few other samples.
    """
    points = text_points(tables, families=0)
    drawn, _ = _topics_drawn(points)
    caption = f"{_topics_said(points)} {tables.about}"
    return finish(drawn, "Topics of the other samples", caption, {})


def _topics_said(points: Points) -> str:
    found = len({*points.group_N.tolist()} - {-1})
    stray = int((points.group_N == -1).sum())
    return (
        f"{len(points.rows)} samples, t-SNE of {points.features} after PCA; {found} topics by "
        f"HDBSCAN, named by the words that set them apart (TF-IDF); {stray} samples (grey) are in "
        "none."
    )


def _topics_drawn(points: Points) -> tuple[Figure, Axes]:
    drawn = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = drawn.subplots()
    colours = ["#CCCCCC" if g < 0 else FAMILIES[g % len(FAMILIES)] for g in points.group_N]
    axes.scatter(
        points.place_N2[:, 0], points.place_N2[:, 1], s=8, c=colours, alpha=0.6, linewidth=0
    )
    sizes = {number: int((points.group_N == number).sum()) for number in topics(points)}
    for number, name in topics(points).items():
        if sizes[number] in sorted(sizes.values())[-MOST_TOPICS:]:
            middle = np.median(points.place_N2[points.group_N == number], axis=0)
            axes.annotate(name, middle, fontsize=5.5, ha="center", zorder=4)
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn, axes


def lengths_of_two(tables: StudyTables) -> Figure:
    """Lengths of questions and answers in the two largest topics. Source: paper figure 6.

    Raises:
        NothingToShowError: the study is of images, or its samples form no topic.
    """
    points, names = _named_topics(tables)
    drawn = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    panels = drawn.subplots(1, min(FIRST_TOPICS, len(names)), squeeze=False, sharey=True)[0]
    legend: dict[str, Any] = {}
    for axes, (number, name) in zip(panels, names.items(), strict=False):
        rows = points.rows[points.group_N == number]
        for part, colour in PART_COLOURS.items():
            sizes = [len(unicode_words(text)) for text in rows[part]]
            bins = np.arange(0, max(sizes) + 3, max(1, max(sizes) // 20))
            _, _, bars = axes.hist(sizes, bins=bins, alpha=0.6, color=colour)
            legend[f"{part}s"] = bars
        axes.set_title(f"{name} ({len(rows)} samples)", loc="left")
        axes.set_xlabel("words")
    panels[0].set_ylabel("samples")
    caption = f"Length in words. {_topics_said(points)} {tables.about}"
    return finish(drawn, "Length of questions and answers in two topics", caption, legend)


def lengths_by_topic(tables: StudyTables) -> Figure:
    """Mean and standard deviation of lengths in each topic. Source: paper figure 26.

    Raises:
        NothingToShowError: the study is of images, or its samples form no topic.
    """
    points, names = _named_topics(tables)
    shown = dict(list(names.items())[:MOST_TOPICS])
    drawn = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(shown)), layout="constrained")
    axes = drawn.subplots()
    legend: dict[str, Any] = {}
    for shift, (part, colour) in zip((-0.18, 0.18), PART_COLOURS.items(), strict=True):
        sizes = [
            [len(unicode_words(text)) for text in points.rows[part][points.group_N == number]]
            for number in shown
        ]
        legend[f"{part}s"] = axes.barh(
            np.arange(len(shown)) + shift, [np.mean(s) for s in sizes], 0.34,
            xerr=[np.std(s) for s in sizes], color=colour, error_kw={"linewidth": 0.8},
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), list(shown.values()))
    axes.invert_yaxis()
    axes.set_xlabel("words: mean, with standard deviation")
    left = f"The {len(shown)} largest topics. " if len(shown) < len(names) else ""
    caption = f"{left}{_topics_said(points)} {tables.about}"
    return finish(drawn, "Length of questions and answers by topic", caption, legend)


def _named_topics(tables: StudyTables) -> tuple[Points, dict[int, str]]:
    """Points and the names of their topics, the largest topic first."""
    points = text_points(tables)
    names = topics(points)
    if not names:
        raise NothingToShowError("its samples form no topic")
    ordered = sorted(names, key=lambda number: -(points.group_N == number).sum())
    return points, {number: names[number] for number in ordered}
