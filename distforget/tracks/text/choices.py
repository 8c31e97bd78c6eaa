"""Log-probabilities of multiple-choice answers; each question is computed once.

Knows tokens only, neither texts nor samples. The answers of a question go on from its keys and
values, which the passes over them share.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from distforget.tracks.text.generation import Using, check_cache, layers_of


@torch.no_grad()
def choice_logprobs(
    module: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    batch_size: int,
    pad_token_id: int,
    using: Using | None = None,
) -> list[np.ndarray]:
    """Mean log-probability of each choice's tokens after its prompt, in nats: an array a prompt.

    Args:
        module: a causal language model that keeps keys and values of all positions.
        prompts: token ids, at least one each.
        choices: of each prompt the token ids of its choices, at least one each.
        batch_size: prompts or choices in a forward pass.
        pad_token_id: fills places that are not read.
        using: entered for each forward pass with the numbers of the prompts that take part.
    """
    using = using or (lambda numbers: nullcontext())
    found = [np.zeros(len(of_prompt)) for of_prompt in choices]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        asked = _Asked(module, [prompts[number] for number in numbers], pad_token_id)
        with using(numbers):
            asked.read()
        # Place in the batch, number and tokens of each choice, those of like length together.
        rows = [(place, i, c) for place, n in enumerate(numbers) for i, c in enumerate(choices[n])]
        rows.sort(key=lambda row: len(row[2]))
        sizes = [(len(prompts[numbers[place]]), len(choice)) for place, _, choice in rows]
        for chunk in _chunks(sizes, batch_size):
            places, which, some = zip(*(rows[index] for index in chunk), strict=True)
            with using([numbers[place] for place in places]):
                means = asked.means(places, some)
            for place, i, mean in zip(places, which, means, strict=True):
                found[numbers[place]][i] = mean
    return found


def _chunks(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Rows by number, in their order, at most `batch_size` together.

    No more columns than the longest row has alone: models have a last position.

    Args:
        sizes: tokens of each row's prompt and choice.
    """
    most = max(prompt + choice for prompt, choice in sizes)
    found: list[list[int]] = []
    widest = longest = 0
    for number, (prompt, choice) in enumerate(sizes):
        widest, longest = max(widest, prompt), max(longest, choice)
        if not found or len(found[-1]) == batch_size or widest + longest > most:
            found.append([])
            widest, longest = prompt, choice
        found[-1].append(number)
    return found


class _Asked:
    """Prompts of one batch, padded on the left: their keys and values, and what comes next."""

    def __init__(self, module: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> None:
        self.module = module
        self.pad = pad
        self.width = max(map(len, prompts))
        self.ids = [[pad] * (self.width - len(prompt)) + [*prompt] for prompt in prompts]
        self.sizes_B = torch.tensor([len(prompt) for prompt in prompts], device=module.device)
        self.cache = DynamicCache()

    def read(self) -> None:
        """The pass over the prompts."""
        columns_T = torch.arange(self.width, device=self.module.device)
        padding_B1 = self.width - self.sizes_B[:, None]
        self.next_B1V = self.module(
            input_ids=torch.tensor(self.ids, device=self.module.device),
            attention_mask=(columns_T >= padding_B1).long(),
            position_ids=(columns_T - padding_B1).clamp(min=0),
            cache=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        check_cache(self.module, self.cache, self.width)

    def means(self, places: Sequence[int], choices: Sequence[Sequence[int]]) -> list[float]:
        """Of each choice behind the prompt at its place; one pass, padded on the right."""
        device = self.module.device
        longest = max(map(len, choices))
        ids = [[*choice, *[self.pad] * (longest - len(choice))] for choice in choices]
        tokens_CL = torch.tensor(ids, device=device)
        rows_C = torch.tensor(places, device=device)
        logits_CLV = self.next_B1V[rows_C]
        if longest > 1:
            sizes_C1 = self.sizes_B[rows_C][:, None]
            width = int(sizes_C1.max())
            cache = copy.copy(self.cache)
            cache.layers = [copy.copy(layer) for layer in self.cache.layers]
            for layer in layers_of(cache):
                layer.keys = layer.keys[rows_C, :, self.width - width :]
                layer.values = layer.values[rows_C, :, self.width - width :]
            columns_T = torch.arange(width + longest - 1, device=device)
            more = self.module(
                input_ids=tokens_CL[:, :-1],
                attention_mask=(columns_T >= width - sizes_C1).long(),
                position_ids=sizes_C1 + torch.arange(longest - 1, device=device),
                cache=cache,
                use_cache=True,
            ).logits
            logits_CLV = torch.cat([logits_CLV, more], dim=1)
        logprobs_CLV = logits_CLV.to(torch.promote_types(logits_CLV.dtype, torch.float32))
        logprobs_CL = logprobs_CLV.log_softmax(-1).gather(-1, tokens_CL[..., None])[..., 0]
        lengths_C = torch.tensor([len(choice) for choice in choices], device=device)
        read_CL = torch.arange(longest, device=device) < lengths_C[:, None]
        sums_C = logprobs_CL.masked_fill(~read_CL, 0).sum(1)
        found: list[float] = (sums_C / lengths_C).tolist()
        return found
