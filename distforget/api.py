"""Runs a study from Python: what `distforget run` does, with tables that open in pandas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distforget.loading import load_study
from distforget.study import Study

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Results:
    """The tables of a study that was run."""

    study: Study
    folder: Path
    """Where they lie as Parquet files."""
    tables: dict[str, pa.Table]
    """By name: samples, training, answers, scores, cells, comparisons, ..."""

    def __getitem__(self, table: str) -> pd.DataFrame:
        """A table as a pandas frame.

        Raises:
            KeyError: there is no such table.
        """
        frame: pd.DataFrame = self.tables[table].to_pandas()
        return frame


def run(study: Study | str, store: str | Path = "results", **placement: Any) -> Results:
    """Run a study; what is done already is not computed again. Progress is printed.

    Args:
        study: a study, a preset's name or the path of a YAML file.
        store: folder of results, or s3://BUCKET/PREFIX.
        placement: further fields of `Placement`, e.g. cpus=2, device="cpu".

    Raises:
        UsageError: study, store, data or model are not fit for it; nothing was computed.
        pydantic.ValidationError: a field of the placement is wrong.
    """
    from rich.console import Console

    from distforget.engine.run import run as run_plan
    from distforget.placement import Placement
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.progress import Progress

    asked = load_study(study) if isinstance(study, str) else study
    where = Placement(store=str(store), **placement)
    with Progress(Console()) as progress:
        summary = run_plan(make_plan(asked), where, progress)
    folder = open_store(where.store).root / "studies" / asked.name
    return Results(asked, folder, summary.tables)
