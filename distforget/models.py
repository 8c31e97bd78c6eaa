"""The models of a study: a base model to fine-tune, or states of it that somebody else trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distforget.frozen import Frozen, Name

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Files that are read from a model's folder, and so are part of its key."""
PICKLED_WEIGHTS = "pytorch_model*.bin"
"""Pickled weights. They are read, as tensors alone, if there are no safetensors, and converted
once."""
ADAPTER_CONFIG = "adapter_config.json"
"""Marks a folder as a LoRA adapter that peft wrote."""

Dose = Annotated[int, Field(ge=0)] | Literal["all"]


class PromptConfig(Frozen):
    """How a question is turned into a prompt."""

    style: Literal["auto", "chat", "plain"] = Field(
        "auto",
        description="auto uses the tokenizer's chat template if it has one, and plain if not",
    )
    system: str | None = Field(None, description="system message; null: the template's own")
    plain: str = Field("Question: {question}\nAnswer: ", description="template used without chat")

    @model_validator(mode="after")
    def _plain_names_the_question(self) -> PromptConfig:
        if "{question}" not in self.plain:
            raise ValueError(
                "plain must contain {question}, e.g. 'Question: {question}\\nAnswer: '"
            )
        return self


class TunedModel(Frozen):
    """A model that was fine-tuned elsewhere: a folder, a hub id, or a LoRA adapter of the base."""

    path: str = Field(description="a local folder, or a hub id such as org/name or org/name@v2")
    dose: Dose = Field(
        "all", description="similar samples of each target that were in its training data"
    )


class UnlearnedModel(TunedModel):
    """A model that was unlearned elsewhere, from the tuned model of the same dose."""

    method: Name = Field(
        description="what tables call it; 'retrain' if it was trained without the targets, so that "
        "all others are compared with it"
    )
    targets: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="numbers of the targets that it unlearned; empty: all"
    )


class ModelConfig(Frozen):
    """A model to fine-tune and unlearn, or states of it that were trained elsewhere."""

    name: Name
    base: str = Field(
        "",
        description="'builtin:smollm2', a local folder, or a hub id such as org/name or "
        "org/name@v2; images: mlp:256,256. Empty: tuned is given, and there is no floor",
    )
    tuned: tuple[TunedModel, ...] = Field(
        (), description="models fine-tuned elsewhere, one for each dose; nothing is fine-tuned"
    )
    unlearned: tuple[UnlearnedModel, ...] = Field(
        (), description="models unlearned elsewhere, to be evaluated beside the study's methods"
    )
    prompt: PromptConfig = PromptConfig()

    @model_validator(mode="before")
    @classmethod
    def _accept_a_path_as_tuned(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("tuned"), str):
            return {**value, "tuned": [{"path": value["tuned"]}]}
        return value

    @model_validator(mode="after")
    def _states_fit_together(self) -> ModelConfig:
        if not (self.base or self.tuned):
            raise ValueError(f"{self.name}: give base, or tuned, or both")
        if self.unlearned and not self.tuned:
            raise ValueError(
                f"{self.name}: unlearned is compared with the model before unlearning; give it as "
                "tuned"
            )
        return self

    @property
    def title(self) -> str:
        """The path by which people know the model."""
        return self.base or self.tuned[-1].path
