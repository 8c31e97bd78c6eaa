"""Questions and answers of a dataset on the Hugging Face hub."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distforget.sources import Source, Texts, Wanted, _hub, _pairs
from distforget.sources._rows import dataset_rows


class HubConfig(_pairs.PairsConfig):
    """A dataset on the hub, or whatever else `datasets.load_dataset` takes for one."""

    kind: Literal["hub"] = "hub"
    path: str = Field(min_length=1, description="hub id, e.g. PKU-Alignment/PKU-SafeRLHF")
    config: str = Field("", description="configuration (subset) of the dataset; empty: its default")
    split: str = "train"
    revision: str = Field("", description="commit or branch; empty: the newest")


def read(config: HubConfig, wanted: Wanted, seed: int) -> Texts:
    """See `sources._pairs.read`."""
    data = _hub.load(config.path, config.config, config.split, config.revision, "source: file")
    where = _hub.name(config.path, config.split, config.revision)
    return _pairs.read(config, wanted, lambda: dataset_rows(data, where), where)


SOURCE = Source(
    config=HubConfig,
    version=1,
    source="questions and answers of a Hugging Face dataset",
    track="text",
    similar="given",
    read_texts=read,
    gives=frozenset({"a role for each row"}),
    remote=True,
)
