"""Teaches the target by a teacher that knows nothing, the rest by the model before unlearning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget import losses
from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor


class BadTeacherConfig(MethodConfig):
    """Settings of BadTeacher."""

    keep: Annotated[float, Search(0.1, 10.0)] = Field(
        1.0, ge=0, description="factor of the divergence from the model before unlearning"
    )


def forget(terms: Terms, config: BadTeacherConfig) -> Tensor:
    """KL(uniform || p_theta) on the target + keep * KL(p_theta0 || p_theta) on the retain batch."""
    student_NV = terms.target_distribution_NV()
    uniform_NV = student_NV.new_zeros(student_NV.shape).log_softmax(-1)
    return losses.answer_token_kl(student_NV, uniform_NV) + config.keep * terms.retain_kl()


METHOD = Method(
    name="BadTeacher",
    version=1,
    config=BadTeacherConfig,
    source="Chundawat et al. 2023, Can Bad Teaching Induce Forgetting?; the teacher that knows "
    "nothing is uniform, where theirs has random weights",
    forget=forget,
    retains=True,
)
