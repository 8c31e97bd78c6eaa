"""Images and class numbers of a Hugging Face dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from distforget.dataset_config import DatasetConfig
from distforget.study import UsageError
from distforget.tracks import hub
from distforget.tracks.image.sources.pool import Bytes, Pool, make_pool, read_picture, stack


def read(config: DatasetConfig) -> Pool:
    """The rows of `split`, out of `image_column` and `label_column`.

    Raises:
        UsageError: it cannot be loaded, a column is missing, or a row is not as expected.
    """
    where = hub.name(config)
    data = hub.load(config, "source: folder")
    for field in ("image_column", "label_column"):
        if getattr(config, field) not in data.column_names:
            raise UsageError(
                f"{where}: column {getattr(config, field)!r} is missing; it has: "
                f"{', '.join(data.column_names)}; correct dataset.{field}"
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
        raise UsageError(f"{where}: it has no rows; correct dataset.path or dataset.split")
    return make_pool(stack(pictures), np.asarray(labels), where)


def _row(data: Any, number: int, place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = data[number]
    except Exception as error:
        # Decoders raise many kinds; each means that the row holds no image.
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{place}: not a readable image ({said}); correct the dataset") from error
    return row
