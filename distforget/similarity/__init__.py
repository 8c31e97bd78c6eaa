"""How similar samples of a target are made: one file each; see :class:`Similarity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from pydantic import Field

from distforget.parts import Part, scan
from distforget.sources import Track

if TYPE_CHECKING:
    import pyarrow as pa


class SimilarTexts(Part):
    """Settings of all similarities of texts."""

    per_target: int = Field(50, ge=0, description="similar samples S(x_i) of each target")
    paraphrases: int = Field(
        0,
        ge=0,
        description="further ones of each target, F(x_i), for enhanced unlearning; never trained "
        "on",
    )


class SimilarImages(Part):
    """Settings of all similarities of images."""

    per_target: int = Field(5, ge=0, description="similar samples S(x_i) of each target")


C = TypeVar("C", bound=Part)


class Writer(Protocol):
    """Answers requests of a similarity, one after the other."""

    def write(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """The columns completion, finish, error and seconds for one request.

        Raises:
            UsageError: no later request can succeed, e.g. since the key is refused.
        """
        ...


@dataclass(frozen=True)
class Asks(Generic[C]):
    """What a similarity asks of a writer elsewhere; completions are kept as results of their own.

    So a run that was ended asks only for what is missing, and another filter asks for nothing.
    """

    key: Callable[[C], dict[str, Any]]
    """What decides the completions."""
    requests: Callable[[pa.Table, C, int, int], pa.Table]
    """From the families, the configuration, the study's seed and the number of the round, one row
    per request: target_index, part, number, prompt, seed."""
    open: Callable[[C], Writer]
    """Opens the writer in a worker."""
    workers: Callable[[C], tuple[int, float]]
    """How many workers ask at once, and the GPUs of each."""
    rewrites: Callable[[pa.Table, C, pa.Table], list[dict[str, Any]]]
    """From the families, the configuration and all completions, rows of table `rewrites`."""
    too_few: Callable[[C, Sequence[dict[str, Any]]], Mapping[int, int]]
    """The targets with too few usable rewrites, for which another round is asked."""


@dataclass(frozen=True)
class Similarity(Generic[C]):
    """A way to make similar samples."""

    config: type[C]
    version: int
    source: str
    """What it does and where it is described; `distforget list similarity` prints it."""
    track: Track
    make: Callable[..., pa.Table]
    """From base rows of some targets and their families, the configuration and the study's seed,
    the rows of their similar samples and paraphrases: base rows with a role, a target_index and a
    similar_rank (1, 2, ... for similar samples; paraphrases go on counting). If it `asks`, it is
    given the rewrites of all rounds, too."""
    asks: Asks[C] | None = None
    """None: it makes its samples by itself."""
    content: Callable[[C], object] = lambda config: None
    """Identifies files that have the same configuration, e.g. of a model that filters."""
    unkeyed: tuple[str, ...] = ()
    """Fields that do not decide any row beyond what the completions hold."""
    needs: str = ""
    """What base samples must say for it (see `Source.gives`); '' for question and answer alone."""
    paper_suffix: str = ""
    """Suffix of the paper's name of a dataset with this similarity."""


def similarities() -> Mapping[str, Similarity[Any]]:
    """All similarities by kind."""
    return scan(__name__, "SIMILARITY")


def similarity_of(config: C) -> Similarity[C]:
    """The similarity that a configuration belongs to."""
    return cast("Similarity[C]", similarities()[config.kind])
