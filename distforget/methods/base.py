"""Defines an unlearning method as arithmetic on Terms. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Generic, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from distforget.frozen import Frozen
from distforget.sources import Track

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Weights = Mapping[str, Tensor]


class Terms(Protocol):
    """What a method may ask of a step's batch; each is computed once, on demand, by the track.

    "Target" is the forget set, with random answers where the method asks for them. "Reference" is
    the cell's own starting point theta_0.
    """

    def target_nll(self) -> Tensor:
        """Scalar: mean negative log-likelihood over the forget set's answer tokens, in nats."""
        ...

    def target_logprobs_B(self) -> Tensor:
        """(B,): log p_theta(a|q) of each forget sample, summed over answer tokens, in nats."""
        ...

    def target_reference_logprobs_B(self) -> Tensor:
        """(B,): the same under theta_0, without gradient."""
        ...

    def target_token_logprobs(self) -> Sequence[Tensor]:
        """(T,) of each forget sample: log p_theta of each of its answer tokens, in nats."""
        ...

    def target_distribution_NV(self) -> Tensor:
        """(N, V): log-probabilities of all tokens where the forget set's answer tokens stand."""
        ...

    def target_reference_distribution_NV(self) -> Tensor:
        """(N, V): the same under theta_0, without gradient."""
        ...

    def target_labels_N(self) -> Tensor:
        """(N,): the forget set's answer tokens."""
        ...

    def preferred_logprobs_B(self) -> Tensor:
        """(B,): log p_theta of the answer that is preferred to each forget sample's, in nats."""
        ...

    def preferred_nll(self) -> Tensor:
        """Scalar: mean negative log-likelihood over the preferred answers' tokens, in nats."""
        ...

    def preferred_reference_logprobs_B(self) -> Tensor:
        """(B,): the same under theta_0, without gradient."""
        ...

    def target_hidden_NH(self, layer: int) -> Tensor:
        """(N, H): hidden states that predict the forget set's answer tokens.

        Args:
            layer: 0: the embeddings; l: the output of layer l; -1: the middle layer.
        """
        ...

    def retain_hidden_NH(self, layer: int) -> Tensor:
        """(N, H): the same of the retain batch."""
        ...

    def retain_reference_hidden_NH(self, layer: int) -> Tensor:
        """(N, H): the same under theta_0, without gradient."""
        ...

    def retain_nll(self) -> Tensor:
        """Scalar: mean negative log-likelihood over the retain batch's answer tokens, in nats."""
        ...

    def retain_kl(self) -> Tensor:
        """Scalar: mean over the retain batch's answer tokens of KL(p_theta0 || p_theta)."""
        ...


@dataclass(frozen=True)
class Search:
    """Where `distforget tune` looks for a setting: `low` to `high`, evenly in its logarithm."""

    low: float
    high: float


class MethodConfig(Frozen):
    """Settings of all gradient methods; docs/methods.md says where the defaults come from."""

    learning_rate: Annotated[float, Search(5e-6, 5e-4)] = Field(
        5e-5, gt=0, description="AdamW, constant"
    )
    steps: Annotated[int, Search(1, 10)] = Field(
        5, ge=1, description="optimiser steps on the forget set"
    )
    retain_weight: Annotated[float, Search(0.1, 10.0)] = Field(
        1.0, ge=0, description="factor of the regulariser KLN or GDN"
    )
    gradient_clip: float = Field(1.0, gt=0, description="norm the gradient is clipped to")


class RandomAnswerConfig(MethodConfig):
    """Settings of a method that trains the forget set on random answers."""

    random_answer: Literal["sample", "list", "tokens"] = Field(
        "sample",
        description="another sample's answer; a line of answer_list; as many random tokens",
    )
    answer_list: str = Field("", description="for random_answer 'list': one answer a line")

    @model_validator(mode="after")
    def _list_where_it_is_used(self) -> RandomAnswerConfig:
        if (self.random_answer == "list") != bool(self.answers()):
            raise ValueError("answer_list needs random_answer 'list', and that needs answer_list")
        return self

    def answers(self) -> list[str]:
        """The answers of the list."""
        return [line.strip() for line in self.answer_list.splitlines() if line.strip()]


@dataclass(frozen=True)
class Importance:
    """How much each weight matters: mean over samples of the squared gradient of their NLL."""

    forget: Weights
    retain: Weights
    """Over the retain batches."""


C = TypeVar("C", bound=Frozen)


@dataclass(frozen=True)
class Method(Generic[C]):
    """One unlearning family; a regulariser is added to it by name (see :func:`resolve`)."""

    name: str
    version: int
    config: type[C]
    source: str
    forget: Callable[[Terms, C], Tensor] | None
    """None: there are no unlearning steps."""
    starts_from: Literal["finetuned", "scratch", "elsewhere"] = "finetuned"
    """"scratch": the cell's model is trained from the base model without the target; "elsewhere":
    it was unlearned by somebody else."""
    finish: Callable[[Weights, Weights, C], Weights] | None = None
    edit: Callable[[Weights, Importance, C, Generator], Weights] | None = None
    """Changes the weights at once, from theta_0 and what they matter for; there are no steps then.
    Not for adapters."""
    trains: Callable[[C], float] | None = None
    """Share of the weights that are trained, those with the largest gradients of the forget set's
    NLL at theta_0; None: all."""
    retains: bool = False
    """True if its own loss asks for retain terms, whatever the regulariser."""
    track: Track | None = None
    """The only track that it is for; None: both."""
    prefers: bool = False
    """True if it asks for a preferred answer, which its config, a RandomAnswerConfig, draws."""
    is_reference: bool = False
    """True for the method that all others are compared with."""
