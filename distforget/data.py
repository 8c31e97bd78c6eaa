"""The `data` of a study: a source, a similarity and how many samples of each role there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, SerializeAsAny, Tag, model_validator

from distforget.frozen import Frozen, Name
from distforget.parts import OneOf, Part, key_of
from distforget.similarity import (
    SimilarImages,
    SimilarTexts,
    similarities,
    similarity_of,
)
from distforget.sources import Track, default_source, source_of, sources


def _of_track(track: Track) -> tuple[OneOf, OneOf]:
    """Type annotations of the fields `source` and `similar` of a track."""
    return (
        OneOf(tuple(s.config for s in sources().values() if s.track == track)),
        OneOf(tuple(s.config for s in similarities().values() if s.track == track)),
    )


_TEXT_SOURCE, _TEXT_SIMILARITY = _of_track("text")
_IMAGE_SOURCE, _IMAGE_SIMILARITY = _of_track("image")


class _Data(Frozen):
    """Base of the datasets of both tracks."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_kinds(cls, value: object) -> object:
        """Fill in the source, the similarity and the dataset's name where the study omits them."""
        if not isinstance(value, dict):
            return value
        source = value.get("source", default_source())
        kind = _kind(source)
        if kind not in sources():
            raise ValueError(f"unknown source {kind!r}; known: {', '.join(sources())}")
        similar = value.get("similar", {})
        if isinstance(similar, Mapping):
            similar = {"kind": sources()[kind].similar, **similar}
        return {"name": kind.replace("_", "-"), **value, "source": source, "similar": similar}

    def check(self, source: Part, similar: Part) -> None:
        """Check that the source gives what the similarity needs.

        Raises:
            ValueError: the source does not give it.
        """
        need = similarity_of(similar).needs
        if need and need not in source_of(source).gives:
            able = [kind for kind, found in sources().items() if need in found.gives]
            raise ValueError(
                f"similar.kind {similar.kind!r} needs {need}, which source {source.kind!r} does "
                f"not give; use source {' or '.join(able)}, or another similarity"
            )


class TextData(_Data):
    """A similarity-entailed dataset of questions and answers (paper section 3)."""

    track: ClassVar[Track] = "text"
    name: Name
    source: SerializeAsAny[Annotated[Part, _TEXT_SOURCE]]
    similar: SerializeAsAny[Annotated[SimilarTexts, _TEXT_SIMILARITY]]
    targets: int = Field(50, ge=1, description="number of targets x_i")
    others: int = Field(
        2450, ge=0, description="other training samples; 0: only targets and similar samples"
    )
    neighbours: int = Field(
        0,
        ge=0,
        description="training samples per target that resemble it but state other facts: "
        "unlearning must not harm them",
    )

    @model_validator(mode="after")
    def _similarity_has_what_it_needs(self) -> TextData:
        self.check(self.source, self.similar)
        return self


class ImageData(_Data):
    """A similarity-entailed dataset of labelled images (paper section 3)."""

    track: ClassVar[Track] = "image"
    name: Name
    source: SerializeAsAny[Annotated[Part, _IMAGE_SOURCE]]
    similar: SerializeAsAny[Annotated[SimilarImages, _IMAGE_SIMILARITY]]
    targets: int = Field(3, ge=1, description="number of targets x_i")
    per_class: int = Field(
        50,
        ge=1,
        description="training samples per class at every dose, including targets and similar "
        "samples",
    )
    unseen_per_class: int = Field(
        20, ge=1, description="never-trained samples per class, as controls"
    )

    @model_validator(mode="after")
    def _similarity_has_what_it_needs(self) -> ImageData:
        self.check(self.source, self.similar)
        return self


def _kind(source: object) -> str:
    found = source.get("kind") if isinstance(source, Mapping) else source
    return str(getattr(source, "kind", found))


def track_of(data: object) -> Track:
    """The track of a study's `data`, which is that of its source."""
    if isinstance(data, _Data):
        data = data.model_dump()
    source = data.get("source", default_source()) if isinstance(data, Mapping) else ""
    found = sources().get(_kind(source))
    return found.track if found else "text"


Data = Annotated[
    Annotated[TextData, Tag("text")] | Annotated[ImageData, Tag("image")],
    Discriminator(track_of),
]


def key_of_data(data: TextData | ImageData) -> dict[str, Any]:
    """Everything that decides the rows of a dataset, for its content key.

    Raises:
        UsageError: a file or package of the source is missing.
    """
    source, similarity = source_of(data.source), similarity_of(data.similar)
    return {
        **data.model_dump(mode="json", exclude={"name", "source", "similar"}),
        "source": {
            **key_of(data.source, source.version, source.unkeyed),
            "content": source.content(data.source),
        },
        "similar": {
            **key_of(data.similar, similarity.version, similarity.unkeyed),
            "content": similarity.content(data.similar),
        },
    }


def paper_name(data: TextData | ImageData) -> str:
    """The paper's name of the dataset, or its name in the study if the paper does not use it."""
    name = source_of(data.source).paper_name(data.source) or data.name
    return f"{name}{similarity_of(data.similar).paper_suffix}"
