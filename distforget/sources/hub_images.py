"""Images and class numbers of a Hugging Face dataset."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from distforget.errors import UsageError
from distforget.parts import Part
from distforget.sources import Source, _hub
from distforget.sources._pool import (
    Bytes,
    Pool,
    make_pool,
    paper_name_of_path,
    read_picture,
    stack,
)


class HubImagesConfig(Part):
    """A dataset of images on the hub."""

    kind: Literal["hub_images"] = "hub_images"
    path: str = Field(min_length=1, description="hub id")
    config: str = Field("", description="configuration (subset) of the dataset; empty: its default")
    split: str = "train"
    revision: str = Field("", description="commit or branch; empty: the newest")
    image_column: str = "image"
    label_column: str = Field("label", description="class numbers 0 to K-1")


def read(config: HubImagesConfig) -> Pool:
    """The rows of `split`, out of `image_column` and `label_column`.

    Raises:
        UsageError: it cannot be loaded, a column is missing, or a row is not as expected.
    """
    where = _hub.name(config.path, config.split, config.revision)
    data = _hub.load(config.path, config.config, config.split, config.revision, "source: folder")
    for field in ("image_column", "label_column"):
        if getattr(config, field) not in data.column_names:
            raise UsageError(
                f"{where}: column {getattr(config, field)!r} is missing; it has: "
                f"{', '.join(data.column_names)}; correct data.source.{field}"
            )
    data = data.select_columns([config.image_column, config.label_column])
    pictures: list[tuple[str, Bytes]] = []
    labels: list[int] = []
    for number in range(len(data)):
        place = f"{where}: row {number + 1}"
        row = _row(data, number, place)
        label, picture = row[config.label_column], row[config.image_column]
        if not isinstance(label, int) or isinstance(label, bool):
            raise UsageError(
                f"{place}, column {config.label_column!r}: it is {type(label).__name__} "
                f"{str(label)[:40]!r}, expected a class number 0 to K-1"
            )
        if not isinstance(picture, Image.Image):
            raise UsageError(
                f"{place}, column {config.image_column!r}: it is {type(picture).__name__}, not an "
                "image; give the column the feature datasets.Image()"
            )
        pictures.append((place, read_picture(picture, place)))
        labels.append(label)
    if not pictures:
        raise UsageError(f"{where}: it has no rows; correct path or split of data.source")
    return make_pool(stack(pictures), np.asarray(labels), where)


def _row(data: Any, number: int, place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = data[number]
    except Exception as error:
        # Decoders raise many kinds; each means that the row holds no image.
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{place}: not a readable image ({said}); correct the dataset") from error
    return row


SOURCE = Source(
    config=HubImagesConfig,
    version=1,
    source="images and class numbers of a Hugging Face dataset",
    track="image",
    similar="mask",
    read_images=read,
    remote=True,
    paper_name=lambda config: paper_name_of_path(config.path),
)
