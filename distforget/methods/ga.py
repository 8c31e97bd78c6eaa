"""Gradient ascent: raise the answer's negative log-likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distforget.methods.base import Method, MethodConfig, Terms

if TYPE_CHECKING:
    from torch import Tensor


class GAConfig(MethodConfig):
    """Settings of GA."""


def forget(terms: Terms, config: GAConfig) -> Tensor:
    """-NLL(theta; q, a)."""
    return -terms.target_nll()


METHOD = Method(
    name="GA",
    version=1,
    config=GAConfig,
    source="paper section 4.2, methods GA_KLN and GA_GDN",
    forget=forget,
)
