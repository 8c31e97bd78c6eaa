"""`similar` on real photographs: changed copies of some patches are found among others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skimage
from PIL import Image

from tests.running import run

SIZE, OTHERS, TARGETS = 24, 900, 5
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
CHANGES = ("noise", "mask", "brightness")


def changed(patch: np.ndarray, change: str, random: np.random.Generator) -> np.ndarray:
    pixels = patch.astype(float)
    if change == "noise":
        pixels += random.normal(0, 12, pixels.shape)
    elif change == "mask":
        pixels[4:11, 6:13] = 0
    else:
        pixels = 0.7 * pixels + 40
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of photographs; then changed copies of the first ones."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    photographs = [
        np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
        for name in PHOTOGRAPHS
    ]
    patches = []
    while len(patches) < OTHERS:
        photograph = photographs[len(patches) % len(photographs)]
        top, left = (random.integers(0, side - SIZE) for side in photograph.shape[:2])
        patch = photograph[top : top + SIZE, left : left + SIZE]
        if patch.std(axis=(0, 1)).min() > 25:
            patches.append(patch)
    planted = [changed(p, change, random) for p in patches[:TARGETS] for change in CHANGES]
    np.savez_compressed(folder / "train.npz", images=np.stack(patches + planted))
    (folder / "forget").mkdir()
    for number, patch in enumerate(patches[:TARGETS]):
        Image.fromarray(patch).save(folder / "forget" / f"{number}.png")
    return folder


def similar(place: Path, *more: str) -> Any:
    return run(
        "similar", "--forget", str(place / "forget"), "--train-data", str(place / "train.npz"),
        "--store", str(place / "store"), "--cpus", "2", *more,
    )  # fmt: skip


def test_changed_copies_are_found_and_hardly_anything_else(place: Path) -> None:
    said = similar(place)
    assert said.process.returncode == 0, said.text
    assert f"{OTHERS + 15} images, 5 requests" in said.text
    table = pd.read_parquet(place / "store" / "similar" / "similar" / "similar.parquet")
    own = table[table["copy"]]
    assert sorted(own["sample_id"]) == list(range(TARGETS))
    found = {(row.target_id, row.sample_id) for row in table[~table["copy"]].itertuples()}
    planted = {(f"{n // len(CHANGES)}.png", OTHERS + n) for n in range(TARGETS * len(CHANGES))}
    assert len(planted & found) >= len(planted) - 2
    assert len(found - planted) <= TARGETS  # half a find by chance is expected for each
    for name in ("similar.png", "pictures.png"):
        assert Image.open(place / "store" / "similar" / "similar" / name).width > 400


def test_features_are_kept_and_bad_input_is_one_line(place: Path) -> None:
    again = similar(place, "--name", "again")
    assert again.process.returncode == 0, again.text
    assert "embedded" not in again.text
    wrong = similar(place, "--embedder", "builtin:minilm")
    assert wrong.process.returncode == 2
    assert "for images give pixels" in wrong.text
    assert "Traceback" not in wrong.text
