"""Fields of data: each is of one track or of both, and one in the wrong place is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distforget.dataset_config import FIELDS, DatasetConfig
from distforget.study import Study, UsageError, load_study
from tests.unit.test_study import CONTENT, IMAGES, changed, plan_of, write


def test_images_have_defaults_of_their_own() -> None:
    study = Study.model_validate({**IMAGES, "dataset": {}})
    assert study.dataset.model_dump() == {
        "name": "digits", "source": "digits", "path": "", "split": "train",
        "revision": "",
        "targets": 3, "similar_per_target": 5, "per_class": 50, "unseen_per_class": 20,
        "similarity": "mask", "block": 2, "masked_fraction": 0.3, "sigma": 0.0,
        "others": 0, "neighbours_per_target": 0, "paraphrases_per_target": 0, "utility": None,
        "image_column": "", "label_column": "", "root": "",
    }  # fmt: skip
    assert study == Study.model_validate_json(study.model_dump_json())
    noise = Study.model_validate(changed("dataset.similarity", "noise", IMAGES)).dataset
    assert (noise.block, noise.masked_fraction, noise.sigma) == (0, 0.0, 0.1)
    assert (noise.image_column, noise.label_column) == ("image", "label")


@pytest.mark.parametrize(
    ("base", "field", "value", "said"),
    [
        *(
            (CONTENT, f, v, rf"{f} is .*belongs to track 'image' and track is 'text'")
            for f, v in (("dataset.per_class", 3), ("dataset.unseen_per_class", 2))
        ),
        (CONTENT, "dataset.block", 2, "block is 2, but it belongs to similarity 'mask'"),
        (CONTENT, "dataset.similarity", "noise", "sigma is 0.0, but similarity 'noise' needs it"),
        (CONTENT, "dataset.image_column", "i", "dataset.image_column is 'i', .*track 'image'"),
        (CONTENT, "dataset.root", "r", "root is 'r', but it belongs to source 'torchvision'"),
        (CONTENT, "dataset.source", "npz", "source is 'npz', .*its sources: biographies, file"),
        (CONTENT, "dataset", {"revision": "v2"}, "revision is 'v2', but it belongs to source"),
        *(
            (IMAGES, f"dataset.{f}", 4, rf"dataset.{f} is 4, but it belongs to track 'text'")
            for f in ("others", "neighbours_per_target", "paraphrases_per_target")
        ),
        (IMAGES, "dataset.source", "file", "source is 'file', .*its sources: digits, torchvision"),
        (IMAGES, "dataset.sigma", 0.1, "sigma is 0.1, but it belongs to similarity 'noise'"),
        (IMAGES, "dataset.masked_fraction", 1.5, "masked_fraction: .*less than or equal to 1"),
        (IMAGES, "dataset.masked_fraction", 0, "masked_fraction is 0.0, .*needs it above 0"),
        (IMAGES, "dataset.per_class", 0, "dataset.per_class is 0, but track 'image' needs it"),
        (IMAGES, "dataset.similarity", "", "dataset.similarity is '', but track 'image' needs"),
        (IMAGES, "dataset.path", "", "path is needed by source 'file' and 'hub'"),
        (IMAGES, "dataset.source", "torchvision", "path is 'some/images', .*MNIST, FashionMNIST"),
        (IMAGES, "dataset.source", "digits", "path is needed by all sources of images but"),
    ],
)  # fmt: skip
def test_a_field_in_the_wrong_place_is_named(
    tmp_path: Path, base: dict[str, Any], field: str, value: Any, said: str
) -> None:
    path = write(tmp_path, changed(field, value, base))
    with pytest.raises(UsageError, match=said) as caught:
        load_study(str(path))
    assert "\n" not in str(caught.value)


def test_every_field_of_a_dataset_is_of_one_track_or_of_both() -> None:
    shared = ("name", "source", "path", "split", "revision", "targets", "similar_per_target")
    found = [*FIELDS["text"], *FIELDS["image"], *shared]
    assert sorted(found) == sorted(DatasetConfig.model_fields)


def test_other_content_of_images_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for source, file in (("npz", "d.npz"), ("folder", "a/1.png")):
        place = tmp_path / file if source == "npz" else tmp_path
        content = changed("", {"dataset.source": source, "dataset.path": str(place)}, IMAGES)
        found = []
        for text in ("one", "two"):
            (tmp_path / file).write_text(text)
            found.append(plan_of(content).dataset.key)
        assert found[0] != found[1]
