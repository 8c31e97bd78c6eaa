"""Reports samples that were found to be similar: words, a figure, and a file for studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distforget import schemas
from distforget.disk import write_lines
from distforget.finding.search import LEVELS
from distforget.report.figure_style import STYLE, WIDTH, finish, write
from distforget.report.pictures import grid, pixels_of

if TYPE_CHECKING:
    from distforget.engine.similar import Found

QUOTED = 70
"""Characters of a sample that the terminal shows."""
PICTURES, PICTURED = 10, 20
"""Images in a line of pictures, the target among them, and lines."""


def by_target(found: Found) -> dict[str, list[dict[str, Any]]]:
    """The rows of table `similar` of each target, most similar first."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name, _ in found.targets}
    for row in found.similar.to_pylist():
        rows[row["target_id"]].append(row)
    return rows


def print_similar(found: Found, console: Console) -> None:
    """Print what was found, in words and two tables."""
    middle, high = np.quantile(found.random_RT, [0.5, 0.99])
    cosine, second = np.median(found.cuts_T2, axis=0)
    other = {"overlap": f"with {second:.0%} of the request's wording",
             "ssim": f"from an SSIM of {second:.2f} on"}[found.kind.second]  # fmt: skip
    console.print(
        f"{found.rows:,} {_rows(found)}, {len(found.targets)} requests. A random one has a cosine "
        f"of {middle:.2f} to a request, and 99 of 100 are below {high:.2f}. One counts as similar "
        f"from a cosine of about {cosine:.2f} on, or {other}; each request has its own cuts."
    )
    table = Table("request", "copies", "similar", "groups", "most similar sample", "cosine", "cut")
    nearest = {row["target_id"]: row for row in found.nearest}
    for (name, rows), (cut, _) in zip(by_target(found).items(), found.cuts_T2, strict=True):
        others = [row for row in rows if not row["copy"]]
        groups = len({row["cluster"] for row in others})
        best = nearest.get(name)
        table.add_row(
            escape(name),
            str(len(rows) - len(others)),
            str(len(others)) if others else "none",
            str(groups),
            escape(quoted(best)) if best else "",
            f"{best['cosine']:.2f}" if best else "",
            f"{cut:.2f}",
        )
    console.print(table)
    levels = Table("cosine at least", f"{_rows(found)}, all requests", "expected by chance")
    for level, count, chance in _levels(found)[::2]:
        levels.add_row(f"{level:.2f}", f"{count:,}", _number(chance))
    console.print(levels)


def _rows(found: Found) -> str:
    return "images" if found.kind.name == "images" else "rows"


def quoted(row: dict[str, Any]) -> str:
    """Question and answer of a sample, shortened; of an image, where it lies and its class."""
    if "pixels" in row:
        return f"{row['place']}, class {row['label']}" if row["label"] else str(row["place"])
    said = " ".join(f"{row['question']} {row['answer']}".split())
    return said if len(said) <= QUOTED else said[: QUOTED - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else "below 0.01"


def _levels(found: Found) -> list[tuple[float, int, float]]:
    """Each cosine with the rows at least so similar, and the rows that chance makes so similar.

    Chance is a share of the random rows where they abound, and their tail beyond.
    """
    shares = np.zeros(len(LEVELS))
    for (cosine, _), random_R in zip(found.chances, found.random_RT.T, strict=True):
        seen = (random_R[:, None] >= LEVELS).mean(axis=0)
        shares += np.where(cosine.in_tail(LEVELS), cosine.share(LEVELS), seen)
    return [
        (float(level), int(count), float(share) * found.rows)
        for level, count, share in zip(LEVELS, found.counts, shares, strict=True)
    ]


def figure(found: Found) -> Figure:
    """Cosines of random rows and of those found; and how many rows chance explains."""
    rows = _rows(found)
    with rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        left, right = drawn.subplots(1, 2)
        random = found.random_RT.ravel()
        left.hist(random, bins=60, weights=np.full(len(random), 1 / len(random)), color="#BBBBBB")
        cosines = found.similar["cosine"].to_numpy()
        left.plot(cosines, np.zeros(len(cosines)), "|", markersize=12, color="#D55E00")
        left.set(xlabel="cosine to a request", ylabel=f"share of random {rows}")
        levels, counts, chance = map(np.asarray, zip(*_levels(found), strict=True))
        some = counts > 0
        right.plot(levels[some], counts[some], marker="o", markersize=3, color="#D55E00")
        right.plot(levels[chance > 0.01], chance[chance > 0.01], color="#888888", linestyle="--")
        right.set(yscale="log", xlabel="cosine at least", ylabel=f"{rows}, all requests")
        cut = float(np.median(found.cuts_T2[:, 0]))
        for axes in (left, right):
            line = axes.axvline(cut, color="black", linewidth=0.8, linestyle=":")
        named = {
            f"similar {rows}": right.lines[0],
            "expected by chance": right.lines[1],
            "cut": line,
        }
        caption = (
            f"{found.rows:,} {rows}, {len(found.targets)} requests. Left: random {rows} (grey) and "
            f"similar {rows} (marks). Right: {rows} at least as similar to a request, copies of it "
            f"included. The cut is the median of the requests' cuts, at which few {rows} are "
            "expected by chance."
        )
        return finish(drawn, "How similar the training data is to the requests", caption, named)


def pictures(found: Found) -> Figure:
    """The first targets, each before the images that are most similar to it."""
    shown: list[dict[str, Any]] = []
    titles: list[str] = []
    for (name, own), rows in zip(found.targets, by_target(found).values(), strict=True):
        others = [row for row in rows if not row["copy"]][: PICTURES - 1]
        blank = {**own, "pixels": bytes([255]) * len(own["pixels"])}
        shown += [own, *others, *[blank] * (PICTURES - 1 - len(others))]
        titles += [name[-24:]]
        titles += [f"cos {row['cosine']:.2f} SSIM {row['ssim']:.2f}" for row in others]
        titles += [""] * (PICTURES - 1 - len(others))
    most = PICTURES * PICTURED
    return grid(np.stack([pixels_of(row) for row in shown[:most]]), titles[:most], PICTURES)


def write_similar(found: Found, folder: Path) -> list[Path]:
    """Write the table, the figure, and the file for studies (texts) or pictures (images).

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "similar.parquet"
    schemas.write(found.similar, found.kind.found, table)
    drawn = write(figure(found), folder / "similar", ["png"])
    if found.kind.name == "images":
        return [table, *drawn, *write(pictures(found), folder / "pictures", ["png"])]
    data = folder / "pairs.jsonl"
    write_lines(data, pairs(found))
    return [table, data, *drawn]


def pairs(found: Found) -> list[dict[str, Any]]:
    """Targets, their similar samples, and others: rows that a study takes with `given`.

    A sample that is similar to several targets belongs to the one that it is most similar to.
    Copies of a target and samples that are targets themselves are left out.
    """
    best: dict[int, dict[str, Any]] = {}
    for row in found.similar.to_pylist():
        if not row["copy"] and not row["requested"]:
            there = best.setdefault(row["sample_id"], row)
            if row["expected"] < there["expected"]:
                best[row["sample_id"]] = row
    rows = [{"role": "target", "target_id": name, **own} for name, own in found.targets]
    kept = ("target_id", "sample_id", "cluster", "question", "answer")
    rows += [
        {"role": "similar", **{name: row[name] for name in kept}}
        for row in sorted(best.values(), key=lambda row: (row["target_id"], row["rank"]))
    ]
    return rows + [{"role": "other", **row} for row in found.others]
