"""Relabelling: teach a wrong answer, for classifiers one of the other classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distforget.methods.base import Method, RandomAnswerConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class RelabelConfig(RandomAnswerConfig):
    """Settings of relabel; other defaults than GDR's, since small classifiers learn by more."""

    learning_rate: Annotated[float, Search(1e-4, 1e-2)] = Field(
        5e-4, gt=0, description="AdamW, constant"
    )
    steps: Annotated[int, Search(5, 200)] = Field(
        20, ge=1, description="optimiser steps on the forget set"
    )
    random_answer: Literal["sample", "list", "tokens"] = Field(
        "tokens", description="as of GDR; tokens: another class, all alike likely"
    )


def forget(terms: Terms, config: RelabelConfig) -> Tensor:
    """NLL(theta; x, y_wrong)."""
    return terms.target_nll()


METHOD = Method(
    name="relabel",
    version=1,
    config=RelabelConfig,
    source="paper section 4.1, relabelling",
    forget=forget,
)
