"""Questions and answers as tokens: templates, and batches that pad on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from distforget.losses import IGNORED
from distforget.study import PromptConfig, UsageError


@dataclass(frozen=True)
class TextExamples:
    """Tokens of samples, kept flat: row i is tokens[offsets[i] : offsets[i + 1]]."""

    tokens: np.ndarray
    offsets: np.ndarray
    prompt_sizes: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(N,) tokens of each row, prompt and answer."""
        return np.diff(self.offsets)

    @property
    def answer_sizes(self) -> np.ndarray:
        """(N,) answer tokens of each row, the end-of-answer token included."""
        sizes: np.ndarray = self.sizes - self.prompt_sizes
        return sizes

    def row(self, index: int) -> np.ndarray:
        """(T,) tokens of one row."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class TextBatch:
    """Rows of one length, padded on the left, so that all answers end at the last position."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor


class Encoder:
    """Turns samples into tokens with a tokenizer and a prompt template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PromptConfig) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if prompt.style == "chat" and not has_template:
            raise UsageError(
                "prompt.style is 'chat', but the tokenizer has no chat template; "
                "use 'auto' or 'plain'"
            )
        self.uses_chat = has_template and prompt.style != "plain"

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each question in its template, ending where the answer begins."""
        if not self.uses_chat:
            texts = [self.prompt.plain.format(question=q) for q in questions]
            return self.tokenizer(texts)["input_ids"]  # type: ignore[no-any-return] # untyped
        system = [] if self.prompt.system is None else [("system", self.prompt.system)]
        conversations = [
            [{"role": role, "content": text} for role, text in [*system, ("user", question)]]
            for question in questions
        ]
        texts = cast(
            list[str],
            self.tokenizer.apply_chat_template(
                conversations, add_generation_prompt=True, tokenize=False
            ),
        )
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return] # untyped

    def answers(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of each answer with the end-of-answer token."""
        ids = self.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        return [[*row, self.tokenizer.eos_token_id] for row in ids]

    def random_answers(self, like: Sequence[str], draw: np.random.Generator) -> list[str]:
        """Texts of random ordinary tokens, as many as these answers have."""
        vocabulary = set(self.tokenizer.get_vocab().values())
        ordinary = sorted(vocabulary - set(self.tokenizer.all_special_ids))
        rows = [draw.choice(ordinary, len(row) - 1) for row in self.answers(like)]
        return [str(self.tokenizer.decode(row)) for row in rows]

    def encode(self, samples: pa.Table) -> TextExamples:
        """Rows of a `samples` table (question, answer) as examples, in their order."""
        prompts = self.prompts(samples["question"].to_pylist())
        answers = self.answers(samples["answer"].to_pylist())
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        return TextExamples(
            np.fromiter((token for row in rows for token in row), np.int32),
            np.cumsum([0, *map(len, rows)]),
            np.array([len(prompt) for prompt in prompts]),
        )

    def batch(self, examples: TextExamples, rows: Sequence[int]) -> TextBatch:
        """Some rows as tensors on the CPU; labels are -100 on prompt and padding."""
        width = int(examples.sizes[list(rows)].max())
        ids = np.full((len(rows), width), self.tokenizer.pad_token_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        labels = np.full((len(rows), width), IGNORED, np.int64)
        for place, index in enumerate(rows):
            tokens = examples.row(index)
            start = width - len(tokens)
            ids[place, start:] = tokens
            mask[place, start:] = 1
            answer = start + examples.prompt_sizes[index]
            labels[place, answer:] = ids[place, answer:]
        return TextBatch(*map(torch.from_numpy, (ids, mask, labels)))
