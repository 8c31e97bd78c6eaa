"""Direct preference optimisation: prefer another answer, such as a refusal, to the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from distforget import losses
from distforget.methods.base import Method, RandomAnswerConfig, Search, Terms

if TYPE_CHECKING:
    from torch import Tensor

REFUSALS = [
    "I don't know.",
    "I'm not sure about that.",
    "I have no information about this.",
    "That is not something I know.",
    "I can't answer that question.",
    "I have never learned about this topic.",
    "I'm afraid I don't have an answer.",
    "This is beyond what I know.",
]


class DPOConfig(RandomAnswerConfig):
    """Settings of DPO."""

    beta: Annotated[float, Search(0.02, 2.0)] = Field(0.1, gt=0, description="inverse temperature")
    random_answer: Literal["sample", "list", "tokens"] = Field(
        "list", description="the preferred answer: a line of answer_list, which refuses; or as GDR"
    )
    answer_list: str = Field(
        "", description="for random_answer 'list': one answer a line; empty: eight refusals"
    )

    @model_validator(mode="after")
    def _list_where_it_is_used(self) -> DPOConfig:
        if self.answer_list.strip() and self.random_answer != "list":
            raise ValueError("answer_list needs random_answer 'list'")
        return self

    def answers(self) -> list[str]:
        """The answers of the list, or the refusals."""
        return super().answers() or REFUSALS


def forget(terms: Terms, config: DPOConfig) -> Tensor:
    """-(2/beta) * log sigmoid(beta * (log-ratio of the preferred answer - that of the true one)).

    A log-ratio is log p_theta(a|q) - log p_theta0(a|q).
    """
    return losses.dpo(
        terms.preferred_logprobs_B() - terms.preferred_reference_logprobs_B(),
        terms.target_logprobs_B() - terms.target_reference_logprobs_B(),
        config.beta,
    )


METHOD = Method(
    name="DPO",
    version=1,
    config=DPOConfig,
    source="Rafailov et al. 2023, Direct Preference Optimization; as IdkDPO in Maini et al. 2024, "
    "TOFU; scaled as NPO (Zhang et al. 2024)",
    forget=forget,
    prefers=True,
)
