"""Relabelling: GDR with a class for an answer, and with settings for small classifiers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distforget.methods.base import Method, Search
from distforget.methods.gdr import GDRConfig, forget


class RelabelConfig(GDRConfig):
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


METHOD = Method(
    name="relabel",
    version=1,
    config=RelabelConfig,
    source="paper section 4.1, relabelling",
    forget=forget,
)
