"""Search for similar images: reading, features and SSIM, each against a naive way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from distforget.errors import UsageError
from distforget.finding.embedders import EmbedderConfig
from distforget.finding.images import IMAGES, Images
from distforget.finding.search import vectors
from distforget.finding.texts import Texts
from distforget.imaging.models import CNNConfig, MLPConfig, build, save
from distforget.sources._pairs import Columns


def images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def npz(path: Path, pixels: np.ndarray, **more: np.ndarray) -> str:
    np.savez_compressed(path, images=pixels, **more)
    return str(path)


def only(data: Images) -> pa.Table:
    (table,) = data.tables(0, 1_000)
    return table


def pictures(folder: Path, pixels: np.ndarray) -> str:
    for number, image in enumerate(pixels):
        place = folder / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return str(folder)


def test_a_file_and_a_folder_hold_the_same_images(tmp_path: Path) -> None:
    pixels = images(6, 9, 8, 3)
    of_file = Images(npz(tmp_path / "a.npz", pixels, labels=np.arange(6)), "--train-data")
    of_folder = Images(pictures(tmp_path / "f", pixels), "--train-data")
    assert only(of_file)["label"].to_pylist() == list("012345")
    assert only(of_file)["place"][5].as_py() == "a.npz image 6"
    cats, dogs = (only(part) for part in of_folder.parts())
    assert cats["place"].to_pylist() == ["cat/1.png", "cat/3.png", "cat/5.png"]
    assert set(dogs["label"].to_pylist()) == {"dog"}
    Image.fromarray(pixels[0]).save(tmp_path / "f" / "loose.png")
    parts = [only(part)["place"].to_pylist() for part in of_folder.parts()]
    assert sorted(place for part in parts for place in part) == sorted(
        [*(f"{'cat' if n % 2 else 'dog'}/{n}.png" for n in range(6)), "loose.png"]
    )
    assert cats["pixels"].to_pylist() == only(of_file)["pixels"].to_pylist()[1::2]


def test_rows_are_counted_on_over_tables(tmp_path: Path) -> None:
    data = Images(npz(tmp_path / "a.npz", images(5, 7, 7)), "--train-data")
    assert [t["sample_id"].to_pylist() for t in data.tables(10, 2)] == [[10, 11], [12, 13], [14]]


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(tmp_path: Path, channels: int) -> None:
    pixels = images(4, 9, 10, channels)
    table = only(Images(npz(tmp_path / "a.npz", pixels), "x"))
    found = IMAGES.measure(table.slice(0, 2), table)
    assert found.shape == (4, 2)
    for row in range(4):
        for target in range(2):
            wanted = structural_similarity(
                pixels[row] / 255, pixels[target] / 255, channel_axis=2, data_range=1
            )
            assert found[row, target] == pytest.approx(wanted, abs=1e-5)


def embedded(table: pa.Table, path: str) -> np.ndarray:
    found = vectors(IMAGES.open(EmbedderConfig(path=path), "cpu")(table))
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(found)), abs=2e-3)
    return found


def test_the_cosine_of_pixels_is_their_correlation_and_colour_alone_no_likeness(
    tmp_path: Path,
) -> None:
    pixels = images(5, 8, 8)
    found = embedded(only(Images(npz(tmp_path / "a.npz", pixels), "x")), "pixels")
    wanted = np.corrcoef(pixels.reshape(5, -1))
    assert found @ found.T == pytest.approx(wanted, abs=5e-3)
    tinted = images(2, 8, 8, 3) // 4 + np.array([150, 20, 0], np.uint8)
    first, second = embedded(only(Images(npz(tmp_path / "b.npz", tinted), "x")), "pixels")
    assert abs(first @ second) < 0.3


@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(image_shape=(1, 8, 8), hidden=(6, 5), classes=3),
        CNNConfig(image_shape=(1, 8, 8), channels=(4,), classes=3),
    ],
)
def test_features_of_a_classifier_are_what_its_last_layer_takes(
    tmp_path: Path, config: MLPConfig | CNNConfig
) -> None:
    model = build(config, torch.Generator().manual_seed(0))
    save(model, tmp_path / "model")
    pixels = images(5, 8, 8)
    found = embedded(only(Images(npz(tmp_path / "a.npz", pixels), "x")), str(tmp_path / "model"))
    inputs = torch.from_numpy(pixels)[:, None].float() / 255
    with torch.inference_mode():
        if isinstance(config, MLPConfig):
            hidden = inputs.flatten(1)
            for layer in model.layers[:-1]:  # type: ignore[union-attr, index]
                hidden = torch.relu(layer(hidden))
        else:
            hidden = torch.relu(model.convolutions[0](inputs)).flatten(1)  # type: ignore[union-attr, index]
    wanted = torch.nn.functional.normalize(hidden, dim=1).numpy()
    assert found == pytest.approx(wanted, abs=2e-3)


def test_blank_images_have_no_direction(tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8), np.uint8)
    table = only(Images(npz(tmp_path / "a.npz", pixels), "x"))
    found = vectors(IMAGES.open(EmbedderConfig(path="pixels"), "cpu")(table))
    assert not found.any()


def test_bad_images_are_refused(tmp_path: Path) -> None:
    good = Images(npz(tmp_path / "a.npz", images(3, 8, 8)), "--train-data")
    small = Images(npz(tmp_path / "b.npz", images(3, 6, 8)), "--forget")
    with pytest.raises(UsageError, match=r"6 x 8 pixels \(L\).*8 x 8 pixels \(L\)"):
        good.check_fits(small)
    with pytest.raises(UsageError, match="SSIM needs 7 x 7"):
        small.check_fits(small)
    with pytest.raises(UsageError, match="both as images or both as texts"):
        good.check_fits(Texts("a.jsonl", "--forget", Columns()))
    with pytest.raises(UsageError, match="both as images or both as texts"):
        Texts("a.jsonl", "--train-data", Columns()).check_fits(good)
    with pytest.raises(UsageError, match="float64, expected uint8"):
        only(Images(npz(tmp_path / "c.npz", images(3, 8, 8) / 255), "x"))
    mixed = tmp_path / "mixed"
    pictures(mixed, images(2, 8, 8))
    Image.fromarray(images(1, 8, 9)[0]).save(mixed / "cat" / "z.png")
    cats, _ = Images(str(mixed), "x").parts()
    with pytest.raises(UsageError, match=r"cat/z\.png: it is 8 x 9 pixels"):
        only(cats)
    with pytest.raises(UsageError, match="give pixels, resnet50"):
        IMAGES.origin(EmbedderConfig(path="builtin:minilm"), "--embedder")


@pytest.mark.parametrize("name", ["none.npz", "texts.jsonl", "folder"])
def test_what_holds_no_images_is_told_from_what_does(tmp_path: Path, name: str) -> None:
    (tmp_path / "texts.jsonl").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_text("{}")
    assert not Images.are_in(str(tmp_path / name))
    assert Images.are_in(npz(tmp_path / "a.npz", images(1, 8, 8)))
