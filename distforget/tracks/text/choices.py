"""How likely a model finds each of the answers it may choose from: a question is computed once.

Knows tokens only, neither texts nor samples. The answers of a question go on from its keys and
values, which the passes over them share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise

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
    """Mean log-probability of a choice's tokens after its prompt, in nats: (choices,) a prompt.

    Args:
        module: a causal language model that keeps keys and values of all positions.
        prompts: token ids, at least one each.
        choices: of each prompt the token ids of its choices, at least one each.
        batch_size: prompts in a forward pass.
        pad_token_id: fills places that are not read.
        using: entered for each forward pass with the numbers of the prompts that take part.
    """
    using = using or (lambda numbers: nullcontext())
    found: dict[int, np.ndarray] = {}
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        some = [prompts[number] for number in numbers]
        mine = [choices[number] for number in numbers]
        means = _means(module, some, mine, pad_token_id, using, numbers)
        found |= dict(zip(numbers, means, strict=True))
    return [found[number] for number in range(len(prompts))]


def _means(
    module: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    pad: int,
    using: Using,
    numbers: Sequence[int],
) -> list[np.ndarray]:
    """Of one batch: a pass over its prompts, padded on the left, then one over all choices."""
    device = module.device
    width = max(map(len, prompts))
    sizes_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    ids = [[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts]
    columns_T = torch.arange(width, device=device)
    cache = DynamicCache()
    with using(numbers):
        first = module(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=(columns_T >= width - sizes_B[:, None]).long(),
            position_ids=(columns_T - width + sizes_B[:, None]).clamp(min=0),
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
    check_cache(module, cache, width)

    counts = [len(of_prompt) for of_prompt in choices]
    rows = [choice for of_prompt in choices for choice in of_prompt]
    prompt_of_C = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts)).to(
        device
    )
    for layer in layers_of(cache):
        layer.keys, layer.values = layer.keys[prompt_of_C], layer.values[prompt_of_C]
    longest = max(map(len, rows))
    tokens_CL = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
    columns_T = torch.arange(width + longest - 1, device=device)
    sizes_C1 = sizes_B[prompt_of_C][:, None]
    logits_CLV = first[prompt_of_C]
    if longest > 1:
        with using([numbers[prompt] for prompt in prompt_of_C.tolist()]):
            more = module(
                input_ids=tokens_CL[:, :-1],
                attention_mask=(columns_T >= width - sizes_C1).long(),
                position_ids=sizes_C1 + torch.arange(longest - 1, device=device),
                cache=cache,
                use_cache=True,
            ).logits
        logits_CLV = torch.cat([logits_CLV, more], dim=1)
    logprobs_CL = logits_CLV.float().log_softmax(-1).gather(-1, tokens_CL[..., None])[..., 0]
    lengths_C = torch.tensor([len(row) for row in rows], device=device)
    read_CL = torch.arange(longest, device=device) < lengths_C[:, None]
    means_C = (logprobs_CL * read_CL).double().sum(1) / lengths_C
    ends = np.cumsum([0, *counts])
    found = means_C.cpu().numpy()
    return [found[low:high] for low, high in pairwise(ends)]
