"""Figures hold what the tables hold, say what is missing, and are written whole."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distforget import schemas
from distforget.analysis.comparisons import EXPERIMENTS
from distforget.errors import UsageError
from distforget.report.figure_numbers import BEYOND, PAPER, draw
from distforget.report.figure_style import formats, method_style, write
from distforget.report.study_tables import CELL, StudyTables

METRIC, TARGETS, SIMILAR, DOSES = "rougeL_recall", 4, 2, (0, 2, 5)
METHODS = (
    ("GA_KLN", "plain"), ("NPO_GDN", "plain"), ("NPO_GDN", "enhanced"), ("TV", "plain"),
    ("GA_KLN", "placebo"),
)  # fmt: skip
FAILED, NOT_RUN = ("GA_KLN", "plain", 5, 2), ("GA_KLN", "plain", 5, 3)
DIVERGED = ("GA_KLN", "plain", 5, 4)
"""Method, variant, dose, target; of TV nothing is done at dose 5."""


def km(role: str, target: int, method: str = "", variant: str = "", dose: int = 0) -> float:
    """A score that tells where it belongs."""
    share = sum(map(ord, role + method + variant)) % 17 / 40
    return round(0.1 + share + 0.02 * target + 0.03 * dose, 6)


def made(seeds: int = 1) -> StudyTables:
    """Tables of one model; scores as `km` says, 0.1 more with each seed."""
    scores: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    planned = []

    def ask(targets: Iterable[int], seed: int | None, dose: int, **state: Any) -> None:
        of = {"method": state.get("method", ""), "variant": state.get("variant", ""), "dose": dose}
        asked = [("other", None, 999)]
        asked += [("target", t, 100 * t) for t in targets]
        asked += [("similar", t, 100 * t + i + 1) for t in targets for i in range(SIMILAR)]
        for role, target, sample in asked:
            value = km(role, target or 0, **of) + 0.1 * (seed or 0)
            scores.append(
                {
                    "attack": "none",
                    "track": "text", "dataset": "d", "model": "m", "seed": seed, "metric": METRIC,
                    "sample_id": sample, "role": role, "target_index": target, "value": value,
                    "dose": None if seed is None else dose, **state,
                }
            )  # fmt: skip

    every = range(1, TARGETS + 1)
    ask(every, None, 0, phase="pre_finetune")
    for dose in DOSES:
        for seed in range(seeds):
            ask(every, seed, dose, phase="pre_unlearn")
            for method, variant in METHODS:
                for target in every:
                    cell = dict(zip(CELL, ("m", dose, method, variant, seed, target), strict=True))
                    planned.append(cell)
                    name = (method, variant, dose, target)
                    failed = name == FAILED or (method, dose) == ("TV", 5)
                    if name == NOT_RUN:
                        continue
                    cells.append(
                        {
                            **cell, "cell": "c", "key": "k", "track": "text", "dataset": "d",
                            "state": "failed" if failed else "done", "attempts": 0,
                            "diverged": name == DIVERGED,
                        }
                    )  # fmt: skip
                    if not failed:
                        of = {"method": method, "variant": variant, "unlearned": target}
                        ask([target], seed, dose, phase="post_unlearn", **of)
    return StudyTables(
        "s", METRIC, 0.1, {"m": "hub/Llama-3.2-1B-Instruct"}, pd.DataFrame(planned),
        schemas.from_rows("scores", scores), schemas.from_rows("cells", cells), "2026-11-25",
        "Made up",
    )  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> StudyTables:
    return made()


def one(tables: StudyTables, wanted: str, name: str) -> Figure:
    found = {drawn.name: drawn.figure for drawn in draw(tables, wanted)}[name]
    assert found is not None
    return found


def panel(figure: Figure, method: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").split()[-1] == method]
    return found


def bars(axes: Axes, series: int) -> dict[int, float]:
    """Heights of a series by target."""
    container = axes.containers[series]
    return {round(b.get_x() + b.get_width() / 2): b.get_height() for b in container.patches}


def text(figure: Figure) -> str:
    words = [item.get_text() for item in figure.texts]
    words += [item.get_text() for legend in figure.legends for item in legend.get_texts()]
    for axes in figure.axes:
        words += [axes.get_title(loc="left"), axes.get_title(loc="right")]
        words += [item.get_text() for item in axes.texts]
    return " ".join(" ".join(words).split())


SHOWN = (
    # number, role, dose, variant
    ("11", "similar", 5, "plain"),
    ("44", "target", 0, "plain"),
    ("45", "target", 5, "plain"),
    ("53", "similar", 0, "plain"),
    ("17", "similar", 5, "enhanced"),
)


@pytest.mark.parametrize(("number", "role", "dose", "variant"), SHOWN)
def test_bars_are_differences_by_target(
    tables: StudyTables, number: str, role: str, dose: int, variant: str
) -> None:
    figure = one(tables, number, f"figure-{number}-m")
    suffix = "" if variant == "plain" else "+enhanced"
    axes = panel(figure, f"NPO_GDN{suffix}")
    for series, before in enumerate((km(role, 0, dose=dose), km(role, 0))):
        expected = {
            t: km(role, t, "NPO_GDN", variant, dose) - before - 0.02 * t
            for t in range(1, TARGETS + 1)
        }
        assert bars(axes, series) == pytest.approx(expected, abs=1e-9)


def test_bars_with_and_without_similar_samples(tables: StudyTables) -> None:
    axes = panel(one(tables, "46", "figure-46-m"), "NPO_GDN")
    assert bars(axes, 0) == pytest.approx(dict.fromkeys(range(1, TARGETS + 1), 0.15))


def test_missing_cells_are_marked_and_have_no_bar(tables: StudyTables) -> None:
    figure = one(tables, "11", "figure-11-m")
    axes = panel(figure, "GA_KLN")
    assert sorted(bars(axes, 0)) == [1, 4]
    marks = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    assert marks == {"failed": [[2, 0]], "not run": [[3, 0]]}
    hatched = [b.get_hatch() for b in axes.containers[0].patches]
    assert [bool(h) for h in hatched] == [False, True]
    assert "2 of 4 targets, 1 failed, 1 not run, 1 diverged" in text(figure)
    assert "n = 0 to 4 of 4 targets" in text(figure)


def test_a_method_without_results_says_so(tables: StudyTables) -> None:
    for number in ("11", "46"):
        figure = one(tables, number, f"figure-{number}-m")
        axes = panel(figure, "TV")
        assert not any(len(container) for container in axes.containers)
        assert [t.get_text() for t in axes.texts] == ["no results"]
        assert axes.get_title(loc="right") == "0 of 4 targets, 4 failed"


def test_bars_of_several_seeds_are_means_with_their_range() -> None:
    figure = one(made(seeds=2), "11", "figure-11-m")
    assert "least to largest of the seeds" in text(figure)
    after = panel(figure, "NPO_GDN")
    expected = km("similar", 1, "NPO_GDN", "plain", 5) + 0.05 - km("similar", 1)
    assert bars(after, 1)[1] == pytest.approx(expected)
    lines = after.collections[1].get_segments()[0]
    assert lines[:, 1] == pytest.approx([expected - 0.05, expected + 0.05])


def test_captions_say_what_was_drawn(tables: StudyTables) -> None:
    said = text(one(tables, "12", "figure-12-m"))
    for part in ("n = ", "Model m", "dose 5 against dose 0", METRIC, "2026-11-25", "Made up"):
        assert part in said


def test_the_forest_holds_estimates_and_intervals(tables: StudyTables) -> None:
    experiment = next(e for e in EXPERIMENTS if (e.name, e.quantity) == ("E4", "dose-dose"))
    figure = one(tables, "verdicts", "verdicts-E4-target-dose-dose-all")
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["GA_KLN", "NPO_GDN", "TV"]
    found = [v for v in tables.verdicts if v.experiment == experiment]
    assert {v.method for v in found} == {"GA_KLN", "NPO_GDN"}
    for verdict in found:
        y = names.index(verdict.method)
        points = [line.get_xdata() for line in axes.lines if list(line.get_ydata())[:1] == [y]]
        assert [verdict.estimate] in [list(p) for p in points]
        if not math.isnan(verdict.low):
            assert [verdict.low, verdict.high] in [list(p) for p in points]
    assert "no results" in [t.get_text() for t in axes.texts]
    assert "4 of 4" in text(figure)


def test_dose_response_holds_means_and_the_placebo_band(tables: StudyTables) -> None:
    figure = one(tables, "doses-target", "doses-target-m")
    axes = panel(figure, "NPO_GDN")
    (curve,) = [line for line in axes.lines if line.get_marker() == method_style("NPO_GDN")[1]]
    assert curve.get_xdata() == pytest.approx(np.log2([1, 3, 6]))
    means = [
        np.mean([km("target", t, "NPO_GDN", "plain", d) for t in range(1, TARGETS + 1)])
        for d in DOSES
    ]
    assert curve.get_ydata() == pytest.approx(means)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    ends = [
        km("target", t, "GA_KLN", "placebo", d) for t, d in ((1, DOSES[0]), (TARGETS, DOSES[-1]))
    ]
    assert [band.min(), band.max()] == pytest.approx(ends)
    assert "slope +0.056" in axes.get_title(loc="right")


def test_two_doses_are_no_curve(tables: StudyTables) -> None:
    two = StudyTables(
        "s", METRIC, 0.1, tables.paths, tables.planned.query("dose != 2"), tables.scores,
        tables.cells, "",
    )  # fmt: skip
    (drawn,) = draw(two, "doses-target")
    assert drawn.figure is None
    assert "2 doses" in drawn.lacking


def test_memory_and_damage_holds_a_dot_a_cell(tables: StudyTables) -> None:
    figure = one(tables, "damage", "damage-m")
    axes = next(a for a in figure.axes if a.get_title(loc="left") == "dose 5")
    dots = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    other = km("other", 0, "NPO_GDN", "plain", 5)
    expected = [[km("target", t, "NPO_GDN", "plain", 5), other] for t in range(1, TARGETS + 1)]
    assert np.array(dots["NPO_GDN, cells"]) == pytest.approx(np.array(expected))
    (mean,) = [line for line in axes.lines if line.get_label() == "NPO_GDN"]
    assert [mean.get_xdata()[0], mean.get_ydata()[0]] == pytest.approx(np.mean(expected, axis=0))
    assert len(dots["TV, cells"]) == 0
    assert "5 failed, 1 not run" in axes.get_title(loc="right")


def test_schemes_are_compared_on_similar_samples(tables: StudyTables) -> None:
    (axes,) = one(tables, "14", "figure-14-m").axes
    levels = {
        line.get_label(): line.get_ydata()[0]
        for line in axes.lines
        if line.get_label() in ("plain", "enhanced")
    }
    for variant in ("plain", "enhanced"):
        values = [km("similar", t, "NPO_GDN", variant, 5) for t in range(1, TARGETS + 1)]
        assert levels[variant] == pytest.approx(np.mean(values))


def test_every_number_of_the_paper_is_drawn() -> None:
    drawn = [number for kind in PAPER for number in kind.numbers]
    assert sorted(drawn) == list(range(1, 56))


def test_all_draws_each_kind_once_and_lists_the_rest(tables: StudyTables) -> None:
    found = {drawn.name: drawn for drawn in draw(tables)}
    shown = {name for name, drawn in found.items() if drawn.figure}
    numbers = {int(n) for n in re.findall(r"figure-(\d+)-m", " ".join(shown))}
    assert numbers == {11, 14, 17, 44, 45, 46, 53}
    assert {f"{name}-m" for name in BEYOND} <= shown
    assert "samples of a study of text" in found["figure-5"].lacking
    assert "images" in found["figures 1-4, 7-10, 15-16, 20-25, 27-37"].lacking
    assert all(bool(d.figure) != bool(d.lacking) for d in found.values())


def test_another_model_has_the_first_number_of_a_kind(tables: StudyTables) -> None:
    other = StudyTables(
        "s", METRIC, 0.1, {"m": "builtin:smollm2"}, tables.planned, tables.scores, tables.cells, ""
    )
    for wanted in ("12", "43"):
        assert [d.name for d in draw(other, wanted)] == [f"figure-{wanted}-m"]


@pytest.mark.parametrize(("wanted", "part"), [("0", "no such figure"), ("56", "no such figure")])
def test_a_figure_that_is_not_there_is_refused(tables: StudyTables, wanted: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        list(draw(tables, wanted))
    with pytest.raises(UsageError, match="'gif'"):
        formats("png,gif")


def test_files_are_written_whole_and_alike_again(tables: StudyTables, tmp_path: Path) -> None:
    before = dict(rcParams)
    heads = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}
    contents = []
    for folder in ("a", "b"):
        figure = one(tables, "12", "figure-12-m")
        paths = write(figure, tmp_path / folder / "figure-12-m", formats("pdf, svg,png"))
        contents.append([path.read_bytes() for path in paths])
        assert {path.suffix[1:]: path.read_bytes()[:5].startswith(heads[path.suffix[1:]])
                for path in paths} == dict.fromkeys(heads, True)  # fmt: skip
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == sorted(
            path.name for path in paths
        )
    assert contents[0] == contents[1]
    assert dict(rcParams) == before


def test_a_place_that_cannot_be_written_is_refused(tables: StudyTables, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    figure = one(tables, "12", "figure-12-m")
    with pytest.raises(UsageError, match="cannot write"):
        write(figure, tmp_path / "file" / "figure-12-m", formats("png"))


def test_a_method_has_the_colour_of_its_family_alone() -> None:
    families = ("GA", "NPO", "GDR", "TV")
    assert len({method_style(name)[0] for name in families}) == len(families)
    assert method_style("GA_KLN")[0] == method_style("GA_GDN")[0]
    assert method_style("GA_KLN")[1:] != method_style("GA_GDN")[1:]
    assert method_style("SimNPO_KLN") == method_style("SimNPO_KLN")
