"""Cross-entropy unlearning: teach what the model would say if the answer's token were not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Terms

if TYPE_CHECKING:
    from torch import Tensor


class CEUConfig(MethodConfig):
    """Settings of CE-U."""


def forget(terms: Terms, config: CEUConfig) -> Tensor:
    """Cross-entropy of p_theta with p_theta without the answer's token, which is a constant."""
    now_NV = terms.target_distribution_NV()
    without_NV = losses.lowered(now_NV.detach(), terms.target_labels_N(), float("inf"))
    return losses.cross_entropy(without_NV, now_NV)


METHOD = Method(
    name="CE-U",
    version=1,
    config=CEUConfig,
    source="Yang 2025, CE-U: Cross Entropy Unlearning",
    forget=forget,
)
