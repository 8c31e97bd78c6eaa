"""Encodes questions and answers as tokens, with prompt templates and left padding.

Text from data stays text: a `</s>` within it is encoded as those four characters, while that of a
prompt template is the control token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distforget.errors import UsageError
from distforget.losses import IGNORED
from distforget.models import PromptConfig

_PRIVATE = range(0xF0000, 0x100000)
"""Characters that stand for the control tokens in data while a template is filled."""


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
        added = tokenizer.added_tokens_decoder.values()
        control = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        longest_first = sorted(control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))
        # A private character in the data is replaced, too, so that each stands for one text.
        private = f"[{chr(_PRIVATE[0])}-{chr(_PRIVATE[-1])}]"
        self._risky = re.compile(f"{self._control.pattern}|{private}")

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each question in its template, ending where the answer begins."""
        stand_ins: dict[str, str] = {}

        def hide(match: re.Match[str]) -> str:
            return stand_ins.setdefault(match[0], chr(_PRIVATE[len(stand_ins)]))

        hidden = [self._risky.sub(hide, question) for question in questions]
        texts = self._filled(hidden)
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=not self.uses_chat)[
            "input_ids"
        ]
        shown = str.maketrans({char: text for text, char in stand_ins.items()})
        for row, (question, text) in enumerate(zip(questions, hidden, strict=True)):
            if question != text:
                ids[row] = self._in_pieces(texts[row], shown)
        return ids

    def _filled(self, questions: Sequence[str]) -> list[str]:
        """The prompt template around each question."""
        if not self.uses_chat:
            return [self.prompt.plain.replace("{question}", question) for question in questions]
        system = [] if self.prompt.system is None else [("system", self.prompt.system)]
        conversations = [
            [{"role": role, "content": text} for role, text in [*system, ("user", question)]]
            for question in questions
        ]
        return cast(
            list[str],
            self.tokenizer.apply_chat_template(
                conversations, add_generation_prompt=True, tokenize=False
            ),
        )

    def _in_pieces(self, prompt: str, shown: Mapping[int, str]) -> list[int]:
        """Token ids of a filled template whose private characters stand for texts.

        The control tokens left in it are the template's own. What lies between two of them is
        encoded alone, as the tokenizer does it.
        """
        ids: list[int] = [] if self.uses_chat else list(self.tokenizer("")["input_ids"])
        start = 0
        for match in [*self._control.finditer(prompt), None]:
            piece = prompt[start : match.start() if match else None]
            if piece:
                ids += self._text_ids([piece.translate(shown)])[0]
            if match:
                ids.append(cast(int, self.tokenizer.convert_tokens_to_ids(match[0])))
                start = match.end()
        return ids

    def _text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts without any control token."""
        return self.tokenizer(  # type: ignore[no-any-return] # transformers leaves it untyped
            list(texts), add_special_tokens=False, split_special_tokens=True
        )["input_ids"]

    def answers(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of each answer with the end-of-answer token."""
        return [[*row, self.tokenizer.eos_token_id] for row in self._text_ids(answers)]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def ends(self, module: PreTrainedModel) -> frozenset[int]:
        """Token ids with which answers of this model end: the tokenizer's and the model's own.

        Llama 3, for one, lists several in its generation_config.json.
        """
        own = getattr(module.generation_config, "eos_token_id", None)
        listed = own if isinstance(own, list) else [] if own is None else [own]
        return frozenset([cast(int, self.tokenizer.eos_token_id), *listed])

    def random_answers(self, like: Sequence[str], draw: np.random.Generator) -> list[str]:
        """Texts of random ordinary tokens, as many as these answers have."""
        vocabulary = set(self.tokenizer.get_vocab().values())
        ordinary = sorted(vocabulary - set(self.tokenizer.all_special_ids))
        rows = [draw.choice(ordinary, len(row) - 1).tolist() for row in self.answers(like)]
        return [self.text(row) for row in rows]

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
