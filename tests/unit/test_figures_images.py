"""Figures of images hold what the tables hold, with their controls, and say what is missing."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pyarrow.compute as pc
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distforget.analysis.comparisons import EXPERIMENTS, compare
from distforget.data import ImageData, paper_name
from distforget.report import figure_numbers
from distforget.report.figure_numbers import Drawn, draw
from distforget.report.figures_samples import cosine_to_targets, sample_pictures
from distforget.report.study_tables import (
    NothingToShowError,
    StudyTables,
)
from tests.made_images import (
    OTHERS,
    SIDE,
    SIMILAR,
    UNSEEN,
    made_images,
    null,
    pixels,
    sample_id,
    ssim,
)
from tests.unit.test_figures import made, one, text

TARGETS = 3
SAMPLES = {
    "target": {t: [sample_id("target", t)] for t in range(1, TARGETS + 1)},
    "similar": {
        t: [sample_id("similar", t, r) for r in range(1, SIMILAR + 1)]
        for t in range(1, TARGETS + 1)
    },
}
CONTROLS = {
    0: [sample_id("other", 0, i) for i in range(OTHERS)],
    TARGETS + 1: [sample_id("unseen", 0, i) for i in range(UNSEEN)],
}


@pytest.fixture(scope="module")
def tables() -> StudyTables:
    return made_images()


def panel(figure: Figure, said: str) -> Axes:
    (found,) = [axes for axes in figure.axes if said in axes.get_title(loc="left")]
    return found


def bars(axes: Axes, state: str) -> dict[int, float]:
    """Heights of a state's bars by place; "" is before unlearning."""
    (container,) = [
        c
        for c in axes.containers
        if c.get_label() == state or (not state and c.get_label()[0] == "_")
    ]
    width = container.patches[0].get_width()
    centres = [b.get_x() + width / 2 for b in container.patches]
    return {round(x): b.get_height() for x, b in zip(centres, container.patches, strict=True)}


SHOWN = (
    # number, panel, role, dose, method
    ("9", "W/O", "target", 0, "retrain"),
    ("9", "W (", "target", 5, "retrain"),
    ("27", "W (", "similar", 5, "retrain"),
    ("34", "targets, W/O", "target", 0, "relabel_GDN"),
    ("34", "targets, W (", "target", 5, "relabel_GDN"),
    ("34", "similar", "similar", 5, "relabel_GDN"),
)
MISSING = {("retrain", 5): 2, ("relabel_GDN", 5): 3}
"""The target of the cell that failed or was not run, by method and dose."""


@pytest.mark.parametrize(("number", "where", "role", "dose", "method"), SHOWN)
def test_bars_are_ssim_before_and_after(
    tables: StudyTables, number: str, where: str, role: str, dose: int, method: str
) -> None:
    axes = panel(one(tables, number, f"figure-{number}-m"), where)
    for state, of in (("", ("", "", dose)), (f"{method} plain", (method, "plain", dose))):
        families = {**SAMPLES[role], **CONTROLS}
        expected = {
            x: np.mean([ssim(sample, *of) for sample in samples])
            for x, samples in families.items()
            if not state or x != MISSING.get((method, dose))
        }
        assert bars(axes, state) == pytest.approx(expected)


@pytest.mark.parametrize(("number", "where", "role", "dose", "method"), SHOWN)
def test_bars_agree_with_the_comparisons(
    tables: StudyTables, number: str, where: str, role: str, dose: int, method: str
) -> None:
    claims = [e for e in EXPERIMENTS if e.name in ("E1", "E2") and e.quantity != "dose-dose"]
    rows = compare(tables.scores, ["ssim"], 0.1, claims).to_pandas()
    rows = rows[(rows["role"] == role) & (rows["dose"] == dose) & (rows["method"] == method)]
    axes = panel(one(tables, number, f"figure-{number}-m"), where)
    before, after = bars(axes, ""), bars(axes, f"{method} plain")
    drawn = {x: after[x] - before[x] for x in after if x in SAMPLES[role]}
    assert drawn == pytest.approx(rows.set_index("unlearned")["difference"].to_dict())


def test_nulls_stand_on_the_bars(tables: StudyTables) -> None:
    axes = panel(one(tables, "9", "figure-9-m"), "W/O")
    before, after = [c.get_offsets() for c in axes.collections if c.get_label() == "ssim_null"]
    for offsets, of in ((before, ("", "", 0)), (after, ("retrain", "plain", 0))):
        expected = [
            np.mean([null(sample, *of) for sample in samples])
            for _, samples in sorted({**SAMPLES["target"], **CONTROLS}.items())
        ]
        assert offsets[:, 1].tolist() == pytest.approx(expected)


def test_missing_cells_are_marked_and_have_no_bar(tables: StudyTables) -> None:
    figure = one(tables, "9", "figure-9-m")
    axes = panel(figure, "W (")
    assert sorted(bars(axes, "retrain plain")) == [0, 1, 3, 4]
    marks = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert marks["failed"] == [pytest.approx([2 + 0.2, 0])]
    assert axes.get_title(loc="right") == "2 of 3 targets, 1 failed"
    assert "n = 2 to 3 of 3 targets" in text(figure)
    others = panel(figure, "W/O")
    assert "1 diverged" in others.get_title(loc="right")
    hatched = [bool(b.get_hatch()) for b in others.containers[1].patches]
    assert hatched == [False, True, False, False, False]
    assert "not run" in panel(one(tables, "34", "figure-34-m"), "targets, W (").get_title(
        loc="right"
    )


def test_schemes_stand_in_order_of_how_much_they_unlearn(tables: StudyTables) -> None:
    figure = one(tables, "15", "figure-15-m")
    (axes,) = figure.axes
    schemes = ("plain", "enhanced-3", "enhanced-5")
    assert [c.get_label() for c in axes.containers[1:]] == [f"retrain {v}" for v in schemes]
    for variant in schemes:
        value = ssim(sample_id("target", 1), "retrain", variant, 5)
        assert bars(axes, f"retrain {variant}")[1] == pytest.approx(value)
    names = re.findall(r"after: (.*?)(?= after:| one sample)", text(figure))
    assert names == ["retrain, target alone", "retrain 1+3", "retrain 1+5"]


def test_bars_of_several_seeds_are_means_with_their_range() -> None:
    figure = one(made_images(seeds=2), "9", "figure-9-m")
    axes = panel(figure, "W/O")
    low, high = (ssim(sample_id("target", 3), "retrain", "plain", 0, seed) for seed in (0, 1))
    assert bars(axes, "retrain plain")[3] == pytest.approx((low + high) / 2)
    lines = [
        line for c in axes.collections if hasattr(c, "get_segments") for line in c.get_segments()
    ]
    assert any(line[:, 1] == pytest.approx([low, high]) for line in lines)
    assert "least to largest of the seeds" in text(figure)


def grey(sample: int) -> np.ndarray:
    return np.frombuffer(pixels(sample), np.uint8).reshape(SIDE, SIDE)


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.squeeze(image.get_array()) for axes in figure.axes for image in axes.images]


def test_pictures_are_originals_then_what_was_recovered(tables: StudyTables) -> None:
    figure = one(tables, "10", "figure-10-m")
    columns = [CONTROLS[0][0], *(s[0] for s in SAMPLES["target"].values()), CONTROLS[4][0]]
    found = pictures(figure)
    row = [grey(sample) for sample in columns]
    recovered = [grey(sample + 1) for sample in columns]
    assert np.array_equal(found[:10], [*row, *row])
    assert np.array_equal(found[10:20], [*recovered, *recovered])
    assert np.array_equal(found[20:], [*recovered, *recovered[:2], *recovered[3:]])
    under = {axes.get_xlabel().split("\n")[0] for axes in figure.axes}
    for of in (("", "", 0), ("retrain", "plain", 5)):
        assert f"{ssim(1, *of):.2f} ({null(1, *of):.2f})" in under
    assert [t.get_text() for axes in figure.axes for t in axes.texts].count("failed") == 1
    assert "diverged" in " ".join(axes.get_xlabel() for axes in figure.axes)


def test_pictures_of_similar_samples_are_those_of_the_first_rank(tables: StudyTables) -> None:
    found = pictures(one(tables, "8", "figure-8-m"))
    columns = [CONTROLS[0][0], *(s[0] for s in SAMPLES["similar"].values()), CONTROLS[4][0]]
    assert np.array_equal(found[:5], [grey(sample) for sample in columns])


def test_many_targets_are_cut_and_the_figure_says_so() -> None:
    many = made_images(targets=12)
    assert "the first 4 of 12 targets" in text(one(many, "10", "figure-10-m"))
    assert "the first 10 of 12 targets" in text(one(many, "4", "figure-4"))
    axes = panel(one(many, "9", "figure-9-m"), "W/O")
    assert sorted(bars(axes, "retrain plain")) == list(range(14))


def test_cosine_similarity_is_that_of_raw_pixels(tables: StudyTables) -> None:
    left, right, _ = cosine_to_targets(tables).axes
    drawn = left.images[0].get_array()
    for t, samples in SAMPLES["similar"].items():
        for rank, sample in enumerate(samples):
            a, b = (grey(s).ravel().astype(float) for s in (SAMPLES["target"][t][0], sample))
            expected = (a * b).sum() / ((a * a).sum() * (b * b).sum()) ** 0.5
            assert drawn[t - 1, rank] == pytest.approx(expected)
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    others = right.images[0].get_array()
    assert others[0, 0] >= others[0, 1]
    assert np.ma.masked_invalid(others)[1:].mask.all()
    assert [t.get_text() for t in right.texts][2:] == ["none"] * 4


def test_samples_stand_beside_their_target(tables: StudyTables) -> None:
    found = pictures(sample_pictures(tables))
    families = zip(SAMPLES["target"].values(), SAMPLES["similar"].values(), strict=True)
    expected = [grey(sample) for target, similar in families for sample in (*target, *similar)]
    assert np.array_equal(found, expected)


NUMBERED = {
    "MNIST": {1, 2, 3, 4, 8, 9, 10, 15, 16, 27, 34, 35},
    "MNIST noise": {1, 2, 3, 4, 7, 8, 15, 16, 34, 35, 36, 37},
    "FashionMNIST": {1, 20, 7, 15, 16, 22, 24, 28, 30, 31, 34, 35},
    "CIFAR10": {1, 21, 7, 15, 16, 23, 25, 29, 32, 33, 34, 35},
    "of one's own": {1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 34, 35},
}


@pytest.fixture
def names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are listed, and none is drawn."""
    monkeypatch.setattr(figure_numbers, "_drawn", lambda name, make: Drawn(name, Figure()))


@pytest.mark.usefixtures("names_alone")
@pytest.mark.parametrize("dataset", NUMBERED)
def test_a_dataset_has_the_papers_number_or_the_first_of_a_kind(
    tables: StudyTables, dataset: str
) -> None:
    assert tables.images
    images = dataclasses.replace(tables.images, dataset=dataset)
    every = draw(dataclasses.replace(tables, images=images))
    found = list(itertools.takewhile(lambda drawn: drawn.name.startswith("figure-"), every))
    names = [drawn.name for drawn in found if drawn.figure]
    assert {int(n) for n in re.findall(r"figure-(\d+)", " ".join(names))} == NUMBERED[dataset]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"source": "digits"}, "MNIST"),
        ({"source": "digits", "similar": {"kind": "noise"}}, "MNIST noise"),
        ({"source": {"kind": "torchvision", "path": "FashionMNIST"}}, "FashionMNIST"),
        ({"source": {"kind": "hub_images", "path": "someone/fashion_mnist"}}, "FashionMNIST"),
        ({"source": {"kind": "hub_images", "path": "someone/cifar10"}}, "CIFAR10"),
        ({"source": {"kind": "folder", "path": "shoes"}, "name": "mine"}, "mine"),
    ],
)
def test_a_dataset_is_known_by_the_papers_name(given: dict[str, str], name: str) -> None:
    assert paper_name(ImageData.model_validate(given)) == name


@pytest.mark.usefixtures("names_alone")
def test_figures_of_the_other_track_are_one_line(tables: StudyTables) -> None:
    found = {drawn.name: drawn.lacking for drawn in draw(tables)}
    assert found["figures 5-6, 11-14, 17-19, 26, 38-55"] == "drawn from a study of text"
    assert not [name for name in found if name.startswith("verdicts-E3")]
    (drawn,) = draw(tables, "12")
    assert (drawn.figure, drawn.lacking) == (None, "drawn from a study of text")
    (drawn,) = draw(made(), "9")
    assert (drawn.figure, drawn.lacking) == (None, "drawn from a study of images")
    with pytest.raises(NothingToShowError, match="images"):
        cosine_to_targets(made())


def test_verdicts_of_images_are_all_drawn_under_names_of_their_own(tables: StudyTables) -> None:
    found = list(draw(tables, "verdicts"))
    assert len({drawn.name for drawn in found}) == len(found)
    shown = {drawn.name: drawn.figure for drawn in found if drawn.figure}
    assert {f"verdicts-E2-target-post-pre_unlearn-{dose}" for dose in ("all", "none")} <= set(shown)
    figure = shown["verdicts-E1-similar-post-pre_unlearn-all"]
    assert figure.axes[0].get_xlabel() == "difference of SSIM"
    assert "KM" not in text(figure)


def test_what_a_study_lacks_is_said() -> None:
    with_alone = made_images(doses=(5,))
    figure = one(with_alone, "9", "figure-9-m")
    axes = panel(figure, "W/O")
    assert [t.get_text() for t in axes.texts] == ["no such models in the study"]
    assert "no such models" in text(one(with_alone, "10", "figure-10-m"))
    without = made_images(doses=(0,), unseen=0)
    (drawn,) = draw(without, "27")
    assert "no models" in drawn.lacking
    assert "No never-trained samples were asked." in text(one(without, "9", "figure-9-m"))


def test_methods_that_were_not_planned_are_said(tables: StudyTables) -> None:
    retrained = dataclasses.replace(tables, planned=tables.planned.query("method == 'retrain'"))
    (drawn,) = draw(retrained, "34")
    assert "plans no plain, not retrained cells" in drawn.lacking
    plain = dataclasses.replace(tables, planned=tables.planned.query("variant == 'plain'"))
    (drawn,) = draw(plain, "15")
    assert "plans no enhanced cells" in drawn.lacking


def test_captions_say_what_was_drawn(tables: StudyTables) -> None:
    for number in ("9", "10", "15", "16", "27", "34", "35"):
        said = text(one(tables, number, f"figure-{number}-m"))
        for part in ("n = ", "Model m", "2026-11-25", "Made up", "MNIST"):
            assert part in said


def test_colour_is_drawn_in_colour() -> None:
    coloured = made_images(dataset="CIFAR10", channels=3)
    first = np.frombuffer(pixels(sample_id("target", 1), 3), np.uint8).reshape(SIDE, SIDE, 3)
    assert np.array_equal(pictures(sample_pictures(coloured))[0], first)
    assert np.array_equal(pictures(one(coloured, "33", "figure-33-m"))[1], first)


def test_a_study_that_has_unlearned_nothing_yet_shows_what_was_before(tables: StudyTables) -> None:
    scores = tables.scores.filter(pc.not_equal(tables.scores["phase"], "post_unlearn"))
    assert tables.images
    found = tables.images.reconstructions
    found = found.filter(pc.not_equal(found["phase"], "post_unlearn"))
    begun = dataclasses.replace(
        tables, every_score=scores, cells=tables.cells.slice(0, 0),
        images=dataclasses.replace(tables.images, reconstructions=found),
    )  # fmt: skip
    axes = panel(one(begun, "9", "figure-9-m"), "W/O")
    assert len(bars(axes, "")) == 5
    assert axes.get_title(loc="right") == "0 of 3 targets, 3 not run"
    said = [t.get_text() for axes in one(begun, "10", "figure-10-m").axes for t in axes.texts]
    assert said.count("not run") == 10
    nothing = dataclasses.replace(begun, every_score=scores.slice(0, 0))
    (drawn,) = draw(nothing, "9")
    assert "no ssim of m" in drawn.lacking
