"""Self-distillation with adjusted logits: the model before unlearning teaches, less sure of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class UNDIALConfig(MethodConfig):
    """Settings of UNDIAL."""

    strength: Annotated[float, Search(1.0, 30.0)] = Field(
        10.0, gt=0, description="nats by which the teacher's logit of the answer's token is lowered"
    )


def forget(terms: Terms, config: UNDIALConfig) -> Tensor:
    """Cross-entropy of p_theta with p_theta0 after the answer's logits were lowered."""
    labels_N = terms.target_labels_N()
    teacher_NV = losses.lowered(terms.target_reference_distribution_NV(), labels_N, config.strength)
    return losses.cross_entropy(teacher_NV, terms.target_distribution_NV())


METHOD = Method(
    name="UNDIAL",
    version=1,
    config=UNDIALConfig,
    source="Dong et al. 2024, UNDIAL: Self-Distillation with Adjusted Logits",
    forget=forget,
)
