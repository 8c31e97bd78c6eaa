"""Questions and answers from a file or a folder of files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from distforget.contents import path_digests
from distforget.sources import Source, Texts, Wanted, _pairs
from distforget.sources._rows import rows_of


class FileConfig(_pairs.PairsConfig):
    """A file, a folder of shards, or a folder written by `save_to_disk`."""

    kind: Literal["file"] = "file"
    path: str = Field(
        min_length=1,
        description=".jsonl, .json, .csv, .tsv, .parquet or .arrow, with or without .gz or .zst; "
        "or a folder of such files, or one written by save_to_disk",
    )
    split: str = Field("train", description="of a folder that save_to_disk wrote with several")


def read(config: FileConfig, wanted: Wanted, seed: int) -> Texts:
    """See `sources._pairs.read`."""
    path = Path(config.path).expanduser()
    rows = partial(rows_of, path, "data.source.path", config.split)
    return _pairs.read(config, wanted, rows, config.path)


SOURCE = Source(
    config=FileConfig,
    version=1,
    source="JSON Lines, JSON, CSV, Parquet or Arrow, one file or a folder of shards",
    track="text",
    similar="given",
    read_texts=read,
    content=lambda config: path_digests(config.path, "data.source.path"),
    unkeyed=("path",),
    gives=frozenset({"a role for each row"}),
)
