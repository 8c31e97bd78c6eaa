"""Finds a track by its name and reads its datasets."""

from __future__ import annotations

import importlib
from types import ModuleType

import pyarrow as pa

from distforget.data import ImageData, TextData
from distforget.similarity import similarity_of
from distforget.study import Study
from distforget.tracks.base import OpenData
from distforget.tracks.rows import from_base, row_schema

TRACKS = {"text": "distforget.tracks.text", "image": "distforget.tracks.image"}


def track(name: str) -> ModuleType:
    """The track's package, imported on first use."""
    return importlib.import_module(TRACKS[name])


def samples_of(data: TextData | ImageData, seed: int) -> pa.Table:
    """Read a dataset as rows of `tracks.rows.row_schema`, in memory and without a cluster.

    Raises:
        UsageError: a row of the source is bad, or there are fewer than the study asks for.
    """
    return completed(track(data.track).open_data(data, seed), data, seed)


def questions_of(study: Study, first_id: int) -> pa.Table:
    """The samples that a study's probes add to its dataset, with role `utility`.

    Args:
        first_id: sample_id of the first one.

    Raises:
        UsageError: they cannot be read, or there are too few.
    """
    rows = row_schema().empty_table()
    for config, own in study.questions:
        found = own.read(config, study.seed)
        found = found.append_column("role", pa.array(["utility"] * len(found)))
        rows = pa.concat_tables([rows, from_base(found, first_id + len(rows))])
    return rows


def completed(opened: OpenData, data: TextData | ImageData, seed: int) -> pa.Table:
    """All rows of a dataset whose source has been read."""
    similar = similarity_of(data.similar).make(opened.families, data.similar, seed)
    rest = (table for reader in opened.rest for table in reader())
    return pa.concat_tables([opened.complete(similar), *rest])
