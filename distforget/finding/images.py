"""Reads, embeds and compares images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distforget.contents import path_digests
from distforget.errors import UsageError
from distforget.finding.embedders import EmbedderConfig
from distforget.finding.image_features import Pixels, open_features, origin
from distforget.finding.kinds import Data, Embed, Floats, Kind, with_vectors
from distforget.sources._pool import CHANNELS, channels_last
from distforget.sources.folder import SUFFIXES, read_file
from distforget.sources.npz import arrays

OWN = ("place", "label", "height", "width", "channels", "pixels")
Shape = tuple[int, ...]
"""Height, width, channels."""


@dataclass(frozen=True)
class Images:
    """Images of one size in a .npz file, or in a folder of .npz, PNG or JPEG files."""

    path: str
    field: str
    """The option that names it, for messages."""
    root: Path | None = None
    """Folder that places are told from; None: the path itself."""
    shape: Shape | None = None
    """What all images are to have; None: what the first one has."""

    @staticmethod
    def are_in(path: str) -> bool:
        """Whether a path names images."""
        return bool(_files(Path(path).expanduser()))

    @property
    def kind(self) -> Kind:
        """Images."""
        return IMAGES

    @property
    def named(self) -> Sequence[str]:
        """No columns are named."""
        return ()

    def parts(self) -> Sequence[Images]:
        """Each .npz file, and each folder of pictures."""
        root = Path(self.path).expanduser()
        shape = self.first_shape()
        files = _files(root)
        places = dict.fromkeys(file if file.suffix == ".npz" else file.parent for file in files)
        return [replace(self, path=str(place), root=root, shape=shape) for place in places]

    def content(self) -> object:
        """Digests of the files."""
        return path_digests(self.path, self.field)

    def first_shape(self) -> Shape:
        """Shape of the first image.

        Raises:
            UsageError: there is none.
        """
        for _, _, pixels in self._pictures():
            return pixels.shape
        raise UsageError(f"{self.path}: it has no image; correct {self.field}")

    def tables(self, first: int, most: int) -> Iterator[pa.Table]:
        """All images in tables of `most`: sample_id and columns `OWN`.

        Raises:
            UsageError: an image cannot be read or has another size; names it.
        """
        rows: list[dict[str, Any]] = []
        for place, label, pixels in self._checked():
            rows.append({"sample_id": first, **_own(place, label, pixels)})
            first += 1
            if len(rows) == most:
                yield _table(rows)
                rows = []
        if rows:
            yield _table(rows)

    def targets(self) -> list[tuple[str, dict[str, Any]]]:
        """All images, each with its place as its id.

        Raises:
            UsageError: an image cannot be read, or there is none.
        """
        found = [(place, _own(place, label, pixels)) for place, label, pixels in self._checked()]
        if not found:
            raise UsageError(f"{self.path}: it has no image; correct {self.field}")
        return found

    def check_fits(self, forget: Data) -> None:
        """Images can be compared with images of their size, of at least 7 x 7 pixels."""
        if not isinstance(forget, Images):
            raise UsageError(
                f"--train-data {self.path} holds images, --forget {forget.path} does not; give "
                "both as images or both as texts"
            )
        mine, theirs = self.first_shape(), forget.first_shape()
        if mine != theirs:
            raise UsageError(
                f"--forget {forget.path}: its images are {_said(theirs)}, those of --train-data "
                f"{_said(mine)}; convert them to one size"
            )
        if min(mine[:2]) < 7:
            raise UsageError(f"{self.path}: images are {_said(mine)}; SSIM needs 7 x 7 pixels")

    def _checked(self) -> Iterator[tuple[str, str, Pixels]]:
        shape = self.shape
        for place, label, pixels in self._pictures():
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise UsageError(
                    f"{place}: it is {_said(pixels.shape)}, the first image is {_said(shape)}; all "
                    "images must have one size: resize or convert them"
                )
            yield place, label, pixels

    def _pictures(self) -> Iterator[tuple[str, str, Pixels]]:
        """Place, class and pixels [H, W, C] of each image."""
        path = Path(self.path).expanduser()
        root = self.root or path
        for file in _files(path, whole=self.root is None):
            if file.suffix == ".npz":
                yield from _of_npz(file)
            else:
                place = file.relative_to(root).as_posix()
                label = "" if file.parent == root else file.parent.name
                yield place, label, read_file(file)


def _files(path: Path, whole: bool = True) -> list[Path]:
    """The files of images: a .npz file; or those in a folder and, if `whole`, its sub-folders."""
    if path.is_file():
        return [path] if path.suffix == ".npz" else []
    if not path.is_dir():
        return []
    seen = [p for p in path.iterdir() if not p.name.startswith(".")]
    folders = [p for p in seen if whole and p.is_dir()]
    inside = [p for folder in folders for p in folder.iterdir() if not p.name.startswith(".")]
    return sorted(p for p in [*seen, *inside] if p.suffix.lower() in (".npz", *SUFFIXES))


def _of_npz(path: Path) -> Iterator[tuple[str, str, Pixels]]:
    (images,) = arrays(path, ["images"])
    pixels_NHWC = channels_last(images, f"{path}: key 'images'")
    if pixels_NHWC.dtype != np.uint8:
        raise UsageError(f"{path}: images are {pixels_NHWC.dtype}, expected uint8 (0 to 255)")
    with np.load(path, allow_pickle=False) as file:
        labels = file["labels"] if "labels" in file.files else [""] * len(pixels_NHWC)
    for number, (pixels, label) in enumerate(zip(pixels_NHWC, labels, strict=False), 1):
        yield f"{path.name} image {number}", str(label), pixels


def _own(place: str, label: str, pixels: Pixels) -> dict[str, Any]:
    height, width, channels = pixels.shape
    return {
        "place": place,
        "label": label,
        "height": height,
        "width": width,
        "channels": channels,
        "pixels": np.ascontiguousarray(pixels).tobytes(),
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


def _said(shape: Shape) -> str:
    height, width, channels = shape
    colours = {number: mode for mode, number in CHANNELS.items()}
    return f"{height} x {width} pixels ({colours.get(channels, channels)})"


def pixels_of(table: pa.Table) -> Pixels:
    """The pixels of all rows, [N, H, W, C]."""
    shape = tuple(table[name][0].as_py() for name in ("height", "width", "channels"))
    whole = b"".join(table["pixels"].to_pylist())
    return np.frombuffer(whole, np.uint8).reshape(len(table), *shape)


def _ssim(targets: pa.Table, rows: pa.Table) -> Floats:
    """SSIM of rows and targets [N, T]; see `imaging.ssim`."""
    from distforget.imaging.ssim import ssim_pairs

    found: Floats = ssim_pairs(_pixels_NCHW(rows), _pixels_NCHW(targets)).float().numpy()
    return found


def _pixels_NCHW(table: pa.Table) -> Any:
    import torch

    return torch.from_numpy(pixels_of(table).copy()).permute(0, 3, 1, 2) / 255


def _open(config: EmbedderConfig, device: str) -> Embed:
    features = open_features(config, device)

    def embed(rows: pa.Table) -> pa.Table:
        vectors_ND = features(pixels_of(rows)).reshape(len(rows), -1)
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return with_vectors(rows, vectors_ND / np.maximum(lengths_N1, 1e-12))

    return embed


IMAGES = Kind(
    name="images",
    embedded="image_embeddings",
    found="similar_images",
    own=OWN,
    second="ssim",
    least=0.3,
    compared=("height", "width", "channels", "pixels"),
    measure=_ssim,
    same=lambda row: (row["height"], row["width"], row["pixels"]),
    origin=origin,
    open=_open,
    embedder="pixels",
)
