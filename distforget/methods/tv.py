"""Task vector: overfit on the target, then step the same way in the opposite direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distforget.methods.base import Method, MethodConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor

    from distforget.methods.base import Weights


class TVConfig(MethodConfig):
    """Settings of TV."""

    scale: Annotated[float, Search(0.2, 5.0)] = Field(
        1.0, gt=0, description="length of the step back, in task vectors"
    )


def forget(terms: Terms, config: TVConfig) -> Tensor:
    """NLL(theta; q, a): the reinforced model is overfitted on the target."""
    return terms.target_nll()


def finish(start: Weights, reinforced: Weights, config: TVConfig) -> Weights:
    """theta = theta_0 - scale * (theta_reinforced - theta_0), tensor by tensor."""
    return {
        name: start[name] - config.scale * (reinforced[name] - start[name]) for name in reinforced
    }


METHOD = Method(
    name="TV",
    version=1,
    config=TVConfig,
    source="paper section 4.2, method TV; Ilharco et al. 2023",
    forget=forget,
    finish=finish,
)
