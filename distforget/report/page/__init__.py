"""Writes a study's page: a folder that a browser opens from disk, without a server."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import vl_convert

from distforget import disk, schemas
from distforget.analysis.states import unattacked
from distforget.attempts import MissingTableError
from distforget.errors import UsageError
from distforget.plan import Plan
from distforget.query import write_csv
from distforget.report import figure_numbers, figure_style, study_tables
from distforget.report.page import charts, content, explorer
from distforget.report.page.ran import what_ran
from distforget.report.page.scripts import script
from distforget.report.pictures import write_pictures
from distforget.store import Store

VEGA = "window.vegaEmbed = vegaEmbed;"
"""The parts of the Vega bundle that the page uses."""
STATIC = ("page.css", "page.js", "leaderboard.js", "explorer.js", "charts.js")
TABLES = ("samples", "training", "answers", "scores", "cells", "comparisons")


def write_report(plan: Plan, store: Store, brief: bool = False) -> Path:
    """Write `studies/NAME/report/` anew from the study's tables; returns its index.html.

    The folder is filled aside and put in place at once.

    Args:
        brief: without figures and CSV files, which take longest; where such a page is served, it
            looks for a newer one and loads it.

    Raises:
        MissingTableError: the study was not run.
        UsageError: a table is corrupt or of another schema.
        DiskError: the disk is full or cannot be written to.
    """
    study = plan.study
    place = store.study_table(study.name, "scores").parent / "report"
    tables = _read(plan, store)
    with store.explaining("the page"), store.scratch("report") as folder:
        made = folder / "report"
        made.mkdir()
        drawn = study_tables.read(plan, store)
        data = {
            **content.content(plan, drawn, tables),
            "ran": what_ran(plan, store, tables["cells"]),
            "charts": charts.specifications(drawn),
            "levels": charts.rows(drawn),
            "downloads": _downloads(tables, made, place.parent, csv=not brief),
            "figures": [] if brief else _figures(drawn, tables, made / "figures"),
        }
        _write_targets(data, tables, made / "data")
        _write_shell(data, brief, made)
        _put(made, place, folder / "before")
    return place / "index.html"


def _read(plan: Plan, store: Store) -> dict[str, pa.Table]:
    """Tables of the study; a run that ended early may not have written all of them."""
    names = (*TABLES, *plan.study.tables)
    found = {}
    for name in names:
        try:
            found[name] = store.read_study_table(plan.study.name, name)
        except MissingTableError:
            if name != "samples":
                raise
    return found


def _shown(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables as the explorer shows them: states that were not attacked."""
    return {
        name: unattacked(table) if "attack" in table.column_names else table
        for name, table in tables.items()
    }


def _write_targets(data: dict[str, Any], tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Write one file per target, which the page loads when somebody looks at it."""
    folder.mkdir()
    if "samples" not in tables:
        return
    for chunk in explorer.chunks(_shown(tables), data["explorer"]["unlearned"]):
        name = f"target-{chunk['target']}"
        disk.write(folder / f"{name}.js", script(name, chunk))


def _write_shell(data: dict[str, Any], brief: bool, folder: Path) -> None:
    """Write the page, its code, and the data that it shows at once."""
    version = hashlib.sha256(script("study", data)).hexdigest()[:12] if brief else ""
    data["watched"] = version
    disk.write(folder / "data" / "study.js", script("study", data))
    disk.write(folder / "data" / "version.js", script("version", version))
    disk.write(folder / "vega.js", vl_convert.javascript_bundle(VEGA).encode())
    static = files(__name__)
    for name in STATIC:
        disk.write(folder / name, (static / name).read_bytes())
    page = (static / "page.html").read_text("utf-8")
    page = page.replace("$STUDY", html.escape(str(data["study"])))
    disk.write(folder / "index.html", page.encode())


def _downloads(
    tables: Mapping[str, pa.Table], folder: Path, beside: Path, csv: bool
) -> list[dict[str, Any]]:
    """Lists each table's Parquet file beside the page and, if asked for, a CSV file in it."""
    found = []
    for name, table in tables.items():
        entry: dict[str, Any] = {
            "name": name,
            "meaning": schemas.describe(name).meaning,
            "rows": len(table),
            "parquet": f"../{name}.parquet",
            "parquet_bytes": (beside / f"{name}.parquet").stat().st_size,
        }
        if csv:
            path = folder / "tables" / f"{name}.csv"
            path.parent.mkdir(exist_ok=True)
            write_csv(table, path)
            entry |= {"csv": f"tables/{name}.csv", "csv_bytes": path.stat().st_size}
        found.append(entry)
    return found


def _figures(
    drawn: study_tables.StudyTables, tables: Mapping[str, pa.Table], folder: Path
) -> list[dict[str, str]]:
    """Draw the figures that the study has data for; returns their files."""
    return [
        {"title": title, **{p.suffix[1:]: f"figures/{p.name}" for p in paths}}
        for title, paths in _drawn(drawn, tables, folder)
    ]


def _drawn(
    drawn: study_tables.StudyTables, tables: Mapping[str, pa.Table], folder: Path
) -> Iterator[tuple[str, list[Path]]]:
    """Title and files of each figure."""
    if "reconstructions" in tables and "samples" in tables:
        for path in write_pictures(tables["samples"], tables["reconstructions"], folder):
            model, seed = path.stem.removeprefix("pictures-").rsplit("-", 1)
            yield f"Originals, before and after unlearning: {model}, seed {seed}", [path]
    for one in figure_numbers.draw(drawn):
        if one.figure is not None:
            title = one.figure.texts[0].get_text().replace("-\n", "-").replace("\n", " ")
            yield title, figure_style.write(one.figure, folder / one.name, ["svg", "png"])


def _put(made: Path, place: Path, before: Path) -> None:
    """Replace the old folder, if there is one, by the new one."""
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place}: it is a file; move it away")
    with suppress(FileNotFoundError):
        place.rename(before)
    made.rename(place)
    disk.sync_folder(place.parent)
