"""What a study says of its data: where it comes from, its sizes, what makes samples similar.

One configuration serves both tracks. A field that plays no part in a study is empty or 0 in it, so
that a dataset has one form; `image_defaults` fills in what an image study leaves unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from distforget.frozen import Frozen, Name

Track = Literal["text", "image"]

SOURCES: Mapping[Track, tuple[str, ...]] = {
    "text": ("biographies", "file", "hub"),
    "image": ("digits", "torchvision", "npz", "folder", "hub"),
}
BUILTIN_SOURCES = ("biographies", "digits")
TORCHVISION_NAMES = ("MNIST", "FashionMNIST", "CIFAR10")

FIELDS: Mapping[Track, tuple[str, ...]] = {
    "text": ("others", "neighbours_per_target", "paraphrases_per_target", "utility"),
    "image": (
        "similarity",
        "block",
        "masked_fraction",
        "sigma",
        "per_class",
        "unseen_per_class",
        "image_column",
        "label_column",
        "root",
    ),
}
"""Fields that one track alone has; the others have both."""

OF_SIMILARITY: Mapping[str, tuple[str, ...]] = {
    "": (),
    "mask": ("block", "masked_fraction"),
    "noise": ("sigma",),
}
"""Fields that each way of making similar samples needs."""

OF_SOURCE: Mapping[str, tuple[str, ...]] = {
    "hub": ("image_column", "label_column"),
    "torchvision": ("root",),
}
"""Fields that only some sources have."""


def image_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """An image study's `dataset` as given, with the defaults of what it leaves unsaid."""
    source = given.get("source", "digits")
    similarity = given.get("similarity", "mask")
    sizes = {"targets": 3, "similar_per_target": 5, "per_class": 50, "unseen_per_class": 20}
    ways = {"mask": {"block": 2, "masked_fraction": 0.3}, "noise": {"sigma": 0.1}}
    places = {
        "hub": {"image_column": "image", "label_column": "label"},
        "torchvision": {"root": "~/.cache/distforget"},
    }
    return {
        "name": source,
        "source": source,
        "others": 0,
        **sizes,
        "similarity": similarity,
        **ways.get(str(similarity), {}),
        **places.get(str(source), {}),
        **given,
    }


CHOICE_ACCURACY = "choice_accuracy"
"""The score of a multiple-choice question: 1 if the right answer is chosen, else 0."""
FACT_RECALL = "fact_recall"
"""The share of a sample's facts that the answer states, 0 to 1; see `tracks.text.facts`."""


class UtilityConfig(Frozen):
    """Multiple-choice questions that no dose trains on: what unlearning costs (E8)."""

    field: ClassVar[str] = "dataset.utility"
    """Its name in a study, for messages."""
    source: Literal["hub", "file"] = "hub"
    path: str = Field(
        "tau/commonsense_qa",
        description="a datasets hub id, or a .jsonl file of its form: question, choices (label, "
        "text), answerKey",
    )
    split: str = Field("validation", description="split of a hub dataset")
    revision: str = Field("", description="commit or branch of a hub dataset; empty: the newest")
    questions: int = Field(100, ge=1, description="drawn from all, the same for all model states")

    @model_validator(mode="after")
    def _fields_match_the_source(self) -> UtilityConfig:
        if self.source == "file":
            if not self.path.endswith(".jsonl"):
                raise ValueError(f"path is {self.path!r}, but a file of questions ends in .jsonl")
            hub_only = {"split": self.split != "validation", "revision": self.revision != ""}
            for field, given in hub_only.items():
                if given:
                    raise ValueError(
                        f"{field} is {getattr(self, field)!r}, but it belongs to source 'hub' and "
                        "source is 'file'; delete one of the two"
                    )
        return self


class DatasetConfig(Frozen):
    """A similarity-entailed dataset (paper section 3): targets, their similar samples, others."""

    field: ClassVar[str] = "dataset"
    """Its name in a study, for messages."""
    name: Name = "biographies"
    source: Literal["biographies", "file", "digits", "torchvision", "npz", "folder", "hub"] = (
        "biographies"
    )
    path: str = Field(
        "",
        description="a file (source: file, npz), a folder with one sub-folder a class (folder), "
        "a datasets hub id (hub), or MNIST, FashionMNIST, CIFAR10 (torchvision)",
    )
    split: str = Field("train", description="split of a hub or torchvision dataset")
    revision: str = Field("", description="commit or branch of a hub dataset; empty: the newest")
    targets: int = Field(50, ge=1, description="number of targets x_i in the data; images: 3")
    similar_per_target: int = Field(
        50, ge=0, description="similar samples S(x_i) of each target; images: 5"
    )
    others: int = Field(
        2450, ge=0, description="text: other samples; 0 trains on targets and similar only"
    )
    neighbours_per_target: int = Field(
        0,
        ge=0,
        description="text: trained samples closest to a target in kind, not in fact: must stay",
    )
    paraphrases_per_target: int = Field(
        0, ge=0, description="text: restatements F(x_i) for enhanced unlearning, never trained on"
    )
    utility: UtilityConfig | None = Field(
        None, description="text: multiple-choice questions asked too, never trained on (E8)"
    )
    similarity: Literal["", "mask", "noise"] = Field(
        "", description="images: how similar samples are made of their target; default mask"
    )
    block: int = Field(0, ge=0, description="mask: side of a block in pixels; default 2")
    masked_fraction: float = Field(
        0.0, ge=0, le=1, description="mask: part of the blocks that is set to 0; default 0.3"
    )
    sigma: float = Field(
        0.0, ge=0, description="noise: standard deviation, pixels being 0 to 1; default 0.1"
    )
    per_class: int = Field(
        0,
        ge=0,
        description="images: rows of each class trained on at every dose, targets and similar "
        "samples counted; default 50",
    )
    unseen_per_class: int = Field(
        0,
        ge=0,
        description="images: rows of each class that are never trained on, as null controls; "
        "default 20",
    )
    image_column: str = Field("", description="images of a hub dataset; default image")
    label_column: str = Field("", description="class numbers of a hub dataset; default label")
    root: str = Field(
        "", description="torchvision: folder of downloads; default ~/.cache/distforget"
    )

    @model_validator(mode="after")
    def _path_matches_source(self) -> DatasetConfig:
        if (self.source in BUILTIN_SOURCES) != (self.path == ""):
            raise ValueError(
                "path is needed by source 'file' and 'hub' and must be empty for 'biographies'"
                if self.source in SOURCES["text"]
                else f"path is needed by all sources of images but 'digits'; source is "
                f"{self.source!r}, path is {self.path!r}"
            )
        if self.source == "torchvision":
            for field, value, known in (
                ("path", self.path, TORCHVISION_NAMES),
                ("split", self.split, ("train", "test")),
            ):
                if value not in known:
                    raise ValueError(
                        f"{field} is {value!r}, but source 'torchvision' has: {', '.join(known)}"
                    )
        return self

    @model_validator(mode="after")
    def _fields_match_their_choice(self) -> DatasetConfig:
        for choice, chosen, owners in (
            ("similarity", self.similarity, OF_SIMILARITY),
            ("source", self.source, OF_SOURCE),
        ):
            for owner, fields in owners.items():
                for field in fields:
                    value = getattr(self, field)
                    if value and owner != chosen:
                        raise ValueError(
                            f"{field} is {value!r}, but it belongs to {choice} {owner!r} and "
                            f"{choice} is {chosen!r}; delete one of the two"
                        )
                    if not value and owner == chosen and choice == "similarity":
                        raise ValueError(
                            f"{field} is {value!r}, but similarity {chosen!r} needs it above 0"
                        )
        if self.revision and self.source != "hub":
            raise ValueError(
                f"revision is {self.revision!r}, but it belongs to source 'hub' and source is "
                f"{self.source!r}; delete one of the two"
            )
        return self


def check_track(dataset: DatasetConfig, track: Track) -> None:
    """Hold a dataset to what its track knows.

    Raises:
        ValueError: its source or a field belongs to another track, or a field is missing.
    """
    if dataset.source not in SOURCES[track]:
        raise ValueError(
            f"dataset.source is {dataset.source!r}, but track is {track!r}; its sources: "
            f"{', '.join(SOURCES[track])}"
        )
    for owner, fields in FIELDS.items():
        for field in fields:
            value = getattr(dataset, field)
            if value and owner != track:
                raise ValueError(
                    f"dataset.{field} is {value!r}, but it belongs to track {owner!r} and track "
                    f"is {track!r}; delete it, or set track: {owner}"
                )
    needed = ("similarity", "per_class", "unseen_per_class", *OF_SOURCE.get(dataset.source, ()))
    for field in needed if track == "image" else ():
        if not getattr(dataset, field):
            raise ValueError(
                f"dataset.{field} is {getattr(dataset, field)!r}, but track 'image' needs it; "
                "delete the line to have its default"
            )
