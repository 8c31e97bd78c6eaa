"""Gradient descent on a random answer: teach another answer to the target's question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distforget.methods.base import Method, RandomAnswerConfig, Terms

if TYPE_CHECKING:
    from torch import Tensor


class GDRConfig(RandomAnswerConfig):
    """Settings of GDR."""


def forget(terms: Terms, config: GDRConfig) -> Tensor:
    """NLL(theta; q, a_random); where the answer comes from is a setting."""
    return terms.target_nll()


METHOD = Method(
    name="GDR",
    version=1,
    config=GDRConfig,
    source="paper section 4.2, methods GDR, GDR_KLN and GDR_GDN",
    forget=forget,
)
