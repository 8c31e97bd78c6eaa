"""Reads training data and forget lists as questions and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from distforget.contents import path_digests
from distforget.errors import UsageError
from distforget.finding.embedders import EmbedderConfig, open_embedder, origin
from distforget.finding.kinds import Data, Embed, Floats, Kind, with_vectors
from distforget.finding.ngrams import hashes, overlap, plain
from distforget.sources import _hub
from distforget.sources._base import Text
from distforget.sources._pairs import Columns, PairsConfig, pairs_of, sizes
from distforget.sources._rows import Row, dataset_rows, rows_of, shards_of

OWN = ("question", "answer")
"""Columns of a row that are its own, beside its number."""


@dataclass(frozen=True)
class Texts:
    """Questions and answers, as files that can be read side by side."""

    path: str
    """A file, a folder, or a dataset of the hub: org/name, org/name/configuration, with @revision;
    its split train."""
    field: str
    """The option that names it, for messages."""
    columns: Columns

    @property
    def kind(self) -> Kind:
        """Texts."""
        return TEXTS

    @property
    def named(self) -> list[str]:
        """Names of the columns that are read."""
        return [self.columns.question, self.columns.answer]

    def parts(self) -> Sequence[Data]:
        """The files of a folder of shards, each as data of its own; else this one."""
        place = Path(self.path).expanduser()
        files = shards_of(place, self.field) if place.is_dir() else []
        return [Texts(str(file), self.field, self.columns) for file in files] or [self]

    def content(self) -> object:
        """What identifies it: digests of the files, or the hub's fingerprint."""
        if self._is_local():
            return path_digests(self.path, self.field)
        return self._of_hub()._fingerprint

    def rows(self) -> Iterator[Row]:
        """All rows, each with its place.

        Raises:
            UsageError: it is not there, or a row cannot be read.
        """
        if self._is_local():
            return rows_of(Path(self.path).expanduser(), self.field, "train")
        return dataset_rows(self._of_hub(), self.path)

    def tables(self, first: int, most: int) -> Iterator[pa.Table]:
        """All rows, whatever their roles, in tables of `most`: sample_id, question, answer.

        Args:
            first: sample_id of the first row.

        Raises:
            UsageError: a row is bad; names file, row, column and fix.
        """
        columns = self.columns.model_copy(update={"role": "", "target_id": ""})
        config = PairsConfig(kind="", columns=columns)
        texts = (text for text, _ in pairs_of(config, 0, self.rows()))
        while block := list(islice(texts, most)):
            ids = pa.array(range(first, first + len(block)), pa.int64())
            table = pa.table({name: [getattr(text, name) for text in block] for name in OWN})
            yield table.add_column(0, "sample_id", ids)
            first += len(block)

    def targets(self) -> list[tuple[str, dict[str, Any]]]:
        """The rows of a forget list with their ids: those with role target, or all.

        Question and answer of each, and facts if it states any.

        Raises:
            UsageError: a row is bad, or no row is a target.
        """
        config = PairsConfig(kind="", columns=self.columns)
        every = 2**62  # without a column role all rows are targets
        sizes(config, self.rows, self.path, every)  # refuses a list without targets, doubled ids
        return [
            (name, _own(text))
            for text, name in pairs_of(config, every, self.rows())
            if text.role == "target"
        ]

    def check_fits(self, forget: Data) -> None:
        """Texts can be compared with texts."""
        if forget.kind is not TEXTS:
            raise UsageError(
                f"--forget {forget.path} holds images, --train-data {self.path} does not; give "
                "both as images or both as texts"
            )

    def _is_local(self) -> bool:
        place = Path(self.path).expanduser()
        looks_local = self.path.startswith((".", "/", "~")) or self.path.count("/") not in (1, 2)
        if place.exists() or looks_local or place.suffix:
            if not place.exists():
                raise UsageError(f"{self.path}: no such file or folder; correct {self.field}")
            return True
        return False

    def _of_hub(self) -> Any:
        name, _, revision = self.path.partition("@")
        organisation, dataset, *config = name.split("/")
        return _hub.load(
            f"{organisation}/{dataset}", "".join(config), "train", revision, "a file", self.field
        )


def _own(text: Text) -> dict[str, Any]:
    row = {name: getattr(text, name) for name in OWN}
    return row | ({"facts": list(text.facts)} if text.facts else {})


def _whole(row: Mapping[str, Any]) -> str:
    """What is embedded: question and answer."""
    return "\n".join(row[name] for name in OWN)


def _same(row: Mapping[str, Any]) -> str:
    """What a row says, in words alone."""
    return plain(_whole(row))


def _open(config: EmbedderConfig, device: str) -> Embed:
    encode = open_embedder(config, device)

    def embed(rows: pa.Table) -> pa.Table:
        whole = [_whole(row) for row in rows.select(OWN).to_pylist()]
        return with_vectors(rows, encode(whole)).append_column("ngrams", hashes(whole))

    return embed


def _overlap(targets: pa.Table, rows: pa.Table) -> Floats:
    return overlap(_ngrams(targets), _ngrams(rows))


def _ngrams(table: pa.Table) -> pa.ListArray:
    """The column `ngrams` in one piece."""
    column = table["ngrams"].combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


TEXTS = Kind(
    name="texts",
    embedded="embeddings",
    found="similar",
    own=OWN,
    second="overlap",
    least=0.2,
    compared=("ngrams",),
    measure=_overlap,
    same=_same,
    origin=origin,
    open=_open,
    embedder="builtin:minilm",
)
