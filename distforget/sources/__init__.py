"""Where base samples come from: one file each; see :class:`Source`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from distforget.parts import Part, scan

if TYPE_CHECKING:
    import pyarrow as pa

    from distforget.sources._pool import Pool

Track = Literal["text", "image"]
C = TypeVar("C", bound=Part)


@dataclass(frozen=True)
class Wanted:
    """How many base samples a text study needs."""

    targets: int
    neighbours: int
    """Neighbours of each target."""
    others: int


@dataclass(frozen=True)
class Reader:
    """Reads consecutive other samples in a stream of tables of `sources._pairs.BASE`."""

    first: int
    """Position of its first sample among the others, from 0."""
    tables: Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Texts:
    """Base samples of text."""

    families: pa.Table
    """Rows of `sources._base.BASE`: the targets and all rows that belong to one of them."""
    others: Sequence[Reader]
    """Together they read exactly as many others as are wanted."""
    where: str
    """What messages call the source."""


@dataclass(frozen=True)
class Source(Generic[C]):
    """A source of base samples.

    A text source gives :class:`Texts`, an image source gives a `Pool`.
    """

    config: type[C]
    version: int
    source: str
    """What it is, in a few words; `distforget list sources` prints it."""
    track: Track
    similar: str
    """Kind of similarity that a study has if it names none."""
    read_texts: Callable[[C, Wanted, int], Texts] | None = None
    """Reads texts, given configuration, sizes and the study's seed; None for images."""
    read_images: Callable[[C], Pool] | None = None
    """None for text."""
    content: Callable[[C], object] = lambda config: None
    """Identifies contents that have the same configuration: digests, a package's version."""
    unkeyed: tuple[str, ...] = ()
    """Fields that do not decide any result."""
    gives: frozenset[str] = field(default_factory=frozenset)
    """What its base samples hold beyond question and answer; some similarities need it."""
    remote: bool = False
    """Whether reading may download; then `plan` does not read it."""
    paper_name: Callable[[C], str] = lambda config: ""
    """The paper's name of the dataset; '' if the paper has none."""
    licence: str = ""
    """Licence of rows that the source makes itself; '' if rows come from elsewhere."""
    default: bool = False
    """True if studies that name no source use this one."""


def sources() -> Mapping[str, Source[Any]]:
    """All sources by kind."""
    return scan(__name__, "SOURCE")


def default_source() -> str:
    """Kind of the source of studies that name none."""
    return next(kind for kind, source in sources().items() if source.default)


def source_of(config: C) -> Source[C]:
    """The source that a configuration belongs to."""
    return cast("Source[C]", sources()[config.kind])
