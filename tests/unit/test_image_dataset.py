"""Rows of images: exactly per_class trained on at every dose, unseen ones never, ids that stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distforget import schemas
from distforget.data import ImageData, TextData
from distforget.errors import UsageError
from distforget.imaging.pixels import labels_of, pixels_of
from distforget.selection import target_row, training_rows
from distforget.sources._pool import Pool, make_pool
from distforget.sources.digits import DigitsConfig, read
from distforget.tracks import completed, samples_of
from distforget.tracks.image.samples import open_pool

DATA = ("name", "targets", "per_class", "unseen_per_class")


def config(**fields: Any) -> ImageData:
    """Fields of the data, and those of its similarity."""
    data = {name: value for name, value in fields.items() if name in DATA}
    similar = {name: value for name, value in fields.items() if name not in DATA}
    return ImageData.model_validate({"source": "digits", "similar": similar, **data})


def build(pool: Pool, data: ImageData, seed: int) -> pa.Table:
    return completed(open_pool(pool, data, seed), data, seed)


def pool(classes: int = 4, each: int = 30, shape: tuple[int, ...] = (6, 6, 1)) -> Pool:
    """Images no two of which are equal, classes in turn, no pixel 0."""
    images = np.random.default_rng(0).integers(1, 256, (classes * each, *shape)).astype(np.uint8)
    return make_pool(images, np.arange(classes * each) % classes, "pool")


SMALL = {"targets": 3, "per_target": 4, "per_class": 12, "unseen_per_class": 5}


def rows(table: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


@pytest.fixture(scope="module")
def digits() -> pa.Table:
    """The paper's sizes on the real digits."""
    return samples_of(config(), 0)


def test_the_papers_sizes(digits: pa.Table) -> None:
    assert Counter(digits["role"].to_pylist()) == {
        "target": 3, "similar": 15, "other": 482 + 15, "unseen": 200,
    }  # fmt: skip
    assert digits["sample_id"].to_pylist() == list(range(len(digits)))
    assert len(training_rows(digits, 5)) == len(training_rows(digits, 0)) == 500
    named = digits.add_column(0, "dataset", pa.array(["d"] * len(digits), pa.string()))
    schemas.check(named, "samples", "test")
    masks = [r["mask"] for r in rows(digits) if r["role"] == "similar"]
    assert [mask.count(0) for mask in masks] == [59 * 4] * 15  # 0.3 of 196 blocks of 2 x 2
    assert len(set(masks)) == 15


def test_the_rows_are_those_of_the_source(digits: pa.Table) -> None:
    found = read(DigitsConfig())
    plain = [r for r in rows(digits) if r["role"] != "similar"]
    for row in plain:
        assert row["pixels"] == found.pixels_NHWC[row["source_index"]].tobytes()
        assert row["answer"] == str(found.labels_N[row["source_index"]])
        assert row["mask"] is row["question"] is None
    assert len({row["source_index"] for row in plain}) == len(plain)


SIZES = st.fixed_dictionaries(
    {
        "targets": st.integers(1, 9),
        "per_target": st.integers(0, 4),
        "per_class": st.integers(15, 20),
        "unseen_per_class": st.integers(1, 10),
        "kind": st.sampled_from(["mask", "noise"]),
    }
)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2**20))
def test_every_dose_trains_on_so_many_of_each_class(sizes: dict[str, Any], seed: int) -> None:
    table = build(pool(), config(**sizes), seed)
    similar = sizes["per_target"]
    unseen = {r["source_index"] for r in rows(table) if r["role"] == "unseen"}
    assert len(unseen) == 4 * sizes["unseen_per_class"]
    trained_before: set[int] = set()
    for dose in range(similar, -1, -1):
        trained = rows(training_rows(table, dose))
        assert Counter(r["answer"] for r in trained) == dict.fromkeys("0123", sizes["per_class"])
        assert Counter(r["role"] for r in trained)["similar"] == dose * sizes["targets"]
        assert not unseen & {r["source_index"] for r in trained}
        plain = {r["sample_id"] for r in trained if r["role"] != "similar"}
        assert trained_before <= plain  # fewer similar samples, more that fill up
        trained_before = plain


@settings(max_examples=30, deadline=None)
@given(SIZES)
def test_similar_samples_are_their_targets_changed(sizes: dict[str, Any]) -> None:
    table = build(pool(), config(**sizes), 0)
    found = rows(table)
    for target in range(1, sizes["targets"] + 1):
        (origin,) = rows(target_row(table, target))
        mine = [r for r in found if r["role"] == "similar" and r["target_index"] == target]
        assert [r["similar_rank"] for r in mine] == list(range(1, sizes["per_target"] + 1))
        for row in mine:
            assert row["source_index"] == origin["source_index"]
            assert row["answer"] == origin["answer"]
            assert row["pixels"] != origin["pixels"]
            if sizes["kind"] == "noise":
                assert row["mask"] is None
            else:
                expected = np.frombuffer(origin["pixels"], np.uint8).copy()
                expected[np.frombuffer(row["mask"], np.uint8) == 0] = 0
                assert row["pixels"] == expected.tobytes()
    fills = Counter(r["fill_rank"] for r in found if r["fill_rank"] is not None)
    assert fills == dict.fromkeys(range(1, sizes["per_target"] + 1), sizes["targets"])


def test_targets_are_of_different_classes_as_far_as_there_are() -> None:
    for targets, most in ((4, 1), (5, 2), (8, 2)):
        table = build(pool(), config(**{**SMALL, "targets": targets, "per_class": 15}), 0)
        classes = Counter(r["answer"] for r in rows(table) if r["role"] == "target")
        assert max(classes.values()) == most
        assert len(classes) == 4


def by_role(table: pa.Table) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for r in rows(table):
        role = "fill" if r["fill_rank"] else r["role"]
        place = (r["target_index"], r["similar_rank"], r["source_index"], r["pixels"])
        found.setdefault(role, []).append(place)
    return found


def test_a_dataset_is_the_same_each_time_and_other_with_another_seed() -> None:
    assert build(pool(), config(**SMALL), 7).equals(build(pool(), config(**SMALL), 7))
    one, other = (by_role(build(pool(), config(**SMALL), seed)) for seed in (7, 8))
    assert all(one[role] != other[role] for role in one)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"unseen_per_class": 9}, {"target", "similar", "other", "fill"}),
        ({"per_class": 15}, {"target", "similar", "unseen"}),
        ({"block": 3}, {"target", "other", "fill", "unseen"}),
        ({"masked_fraction": 0.5}, {"target", "other", "fill", "unseen"}),
        ({"kind": "noise"}, {"target", "other", "fill", "unseen"}),
        ({"per_target": 3}, {"target", "unseen"}),
        ({"name": "other"}, {"target", "similar", "other", "fill", "unseen"}),
    ],
)
def test_what_a_setting_is_not_about_stays(change: dict[str, Any], kept: set[str]) -> None:
    old = by_role(build(pool(), config(**SMALL), 0))
    new = by_role(build(pool(), config(**{**SMALL, **change}), 0))
    assert {role for role in old if old[role] == new[role]} == kept


def test_more_targets_leave_the_first_as_they_are() -> None:
    few, many = (
        by_role(build(pool(), config(**{**SMALL, "targets": n, "per_class": 15}), 0))
        for n in (2, 7)
    )
    assert many["target"][:2] == few["target"]
    assert many["similar"][:8] == few["similar"]
    assert many["unseen"] == few["unseen"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"per_class": 20, "unseen_per_class": 11},
            "pool: class 0 has 30 images (copies counted once), the study asks for 31: lower "
            "data.per_class (20) or data.unseen_per_class (11)",
        ),
        (
            {"targets": 12, "per_class": 14},
            "pool: class 0 has 3 targets with 4 similar samples each, 15 rows, but "
            "data.per_class is 14: lower data.targets or data.similar.per_target, or "
            "raise data.per_class",
        ),
        (
            {"block": 7},
            "the images are 6 x 6 pixels, but data.similar.block is 7: lower data.similar.block",
        ),
        (
            {"masked_fraction": 0.05},
            "the images are 6 x 6 pixels: data.similar.masked_fraction 0.05 with "
            "data.similar.block 2 masks no block; raise masked_fraction",
        ),
    ],
)
def test_sizes_that_do_not_fit_name_the_setting(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(pool(), config(**{**SMALL, **change}), 0)
    assert str(caught.value) == said


@pytest.mark.parametrize("shape", [(6, 6, 1), (5, 8, 3)])
def test_pixels_and_labels_come_back(shape: tuple[int, ...]) -> None:
    source = pool(shape=shape)
    table = build(source, config(**SMALL), 0)
    plain = table.filter(pa.compute.not_equal(table["role"], "similar"))
    images = pixels_of(plain)
    height, width, channels = shape
    assert images.shape == (len(plain), channels, height, width)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    picked = plain["source_index"].to_numpy()
    for c in range(channels):
        assert np.allclose(images[:, c] * 255, source.pixels_NHWC[picked, :, :, c], atol=1e-4)
    assert labels_of(plain).tolist() == (picked % 4).tolist()
    assert labels_of(plain).dtype == np.int64


def test_pixels_of_other_rows_are_refused(digits: pa.Table) -> None:
    small = build(pool(), config(**SMALL), 0)
    text = samples_of(TextData.model_validate({"targets": 3, "others": 0}), 0)
    for wrong in (digits.slice(0, 0), text, pa.concat_tables([digits, small])):
        with pytest.raises(ValueError, match="images of one size are needed"):
            pixels_of(wrong)


def test_shards_hold_the_same_rows(digits: pa.Table) -> None:
    again = samples_of(config(), 0)
    parts = [again.slice(first, 97) for first in range(0, len(again), 97)]
    assert pa.concat_tables(parts).equals(digits)
