"""Generates greedy answers in batches; earlier answers serve as drafts and change no token.

A draft is checked in the pass that goes on after the answer so far: its tokens are kept as long as
greedy decoding would have chosen them (Stern et al. 2018, arXiv 1811.03115; Leviathan et al. 2023,
arXiv 2211.17192, with a draft for the draft model). Knows tokens only, neither texts nor samples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from distforget.draws import generator_seed

Using = Callable[[Sequence[int]], AbstractContextManager[None]]
"""Given the numbers of the prompts in a forward pass, what that pass is done in."""

Choose = Callable[[Sequence["Row"], Tensor], list[list[int]]]
"""From the rows and their logits (B, W, V), the token of each row and place."""

FIXED_COST = {"cpu": 16, "cuda": 256}
"""What a pass costs beside its tokens, in tokens: SmolLM2 on one core; for a GPU an estimate."""


@dataclass(frozen=True)
class Generated:
    """Answers in the order of the prompts."""

    tokens: list[list[int]]
    """New tokens of each row; the last one is the end-of-answer token if the row came to it."""
    passes: list[int]
    """Forward passes each row took part in, the one over its prompt included."""


@torch.no_grad()
def generate(
    module: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    ends: Collection[int],
    pad_token_id: int,
    drafts: Sequence[Sequence[int]] | None = None,
    using: Using | None = None,
    choose: Choose | None = None,
) -> Generated:
    """Decode greedily; rows of like length together, a row that has ended leaves its place.

    Drafts change no token but where two logits differ by no more than rounding: the number of
    positions computed at once decides how sums are rounded, as the batch size does.

    Args:
        module: a causal language model that keeps keys and values of all positions.
        prompts: token ids of each row, at least one.
        batch_size: rows in a forward pass.
        ends: tokens that end an answer.
        pad_token_id: fills places that are not read.
        drafts: of each row the tokens that its answer may begin with or hold; [] for none.
        using: entered for each forward pass with the numbers of the prompts that take part.
        choose: how tokens are chosen; None: the likeliest ones.
    """
    if drafts is None:
        drafts = [()] * len(prompts)
    rows = [
        Row(number, prompt, draft, max_new_tokens, ends)
        for number, (prompt, draft) in enumerate(zip(prompts, drafts, strict=True))
    ]
    waiting = sorted(rows, key=lambda row: len(row.prompt))
    hits = Hits()
    using = using or (lambda numbers: nullcontext())
    choose = choose or _likeliest
    batch = Batch(module, [], pad_token_id, hits, using, choose)
    while batch.rows or waiting:
        # Each entry costs a pass of its own: it is worth it from a quarter of the places on.
        if waiting and len(batch.rows) <= batch_size * 3 // 4:
            places = batch_size - len(batch.rows)
            entering = Batch(module, waiting[-places:], pad_token_id, hits, using, choose)
            del waiting[-places:]
            entering.advance()
            batch.join(entering)
        else:
            batch.advance()
    return Generated([row.tokens for row in rows], [row.passes for row in rows])


def _likeliest(rows: Sequence[Row], logits_BWV: Tensor) -> list[list[int]]:
    found: list[list[int]] = logits_BWV.argmax(-1).tolist()
    return found


def drawing(seeds: Sequence[int], temperature: float) -> Choose:
    """Draws each token by its probability at a temperature.

    A draw depends on the row's seed and on the tokens before, not on the batch (Gumbel-max: the
    likeliest after noise that is each token's own).

    Args:
        seeds: of each prompt; those of one question differ where several answers are drawn.
    """

    def choose(rows: Sequence[Row], logits_BWV: Tensor) -> list[list[int]]:
        found = []
        for row, logits_V in zip(rows, logits_BWV[:, 0].float().cpu(), strict=True):
            seed = generator_seed(seeds[row.number], "token", len(row.tokens))
            uniform_V = torch.rand(
                logits_V.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            gumbel_V = -(-uniform_V.clamp(min=1e-300).log()).log()
            found.append([int((logits_V.double() / temperature + gumbel_V).argmax())])
        return found

    return choose


@dataclass
class Row:
    """An answer under way and the place where it meets its draft."""

    number: int
    prompt: Sequence[int]
    draft: Sequence[int]
    max_new_tokens: int
    ends: Collection[int]
    tokens: list[int] = field(default_factory=list)
    passes: int = 0
    place: int | None = 0
    """Where in the draft the next token is expected; None while the answer is off the draft."""

    def __post_init__(self) -> None:
        self.after_pair: dict[tuple[int, ...], int] = {
            pair: i + 2 for i, pair in enumerate(pairwise(self.draft))
        }

    @property
    def size(self) -> int:
        """Tokens so far, prompt included."""
        return len(self.prompt) + len(self.tokens)

    @property
    def ended(self) -> bool:
        """Whether no token is to come."""
        return len(self.tokens) >= self.max_new_tokens or (
            bool(self.tokens) and self.tokens[-1] in self.ends
        )

    def unseen(self) -> Sequence[int]:
        """Tokens that the model has not been given: the prompt, later the last token."""
        return self.tokens[-1:] or self.prompt

    def proposal(self, longest: int) -> Sequence[int]:
        """What the draft says comes next; a pass gives one token more than it is proposed."""
        if self.place is None:
            return ()
        room = self.max_new_tokens - len(self.tokens) - 1
        return self.draft[self.place : self.place + min(longest, room)]

    def take(self, greedy: Sequence[int], proposal: Sequence[int]) -> int:
        """Go on by a pass; returns how many proposed tokens were right.

        Args:
            greedy: the model's choice after the last token and after each proposed one.
        """
        right = 0
        while right < len(proposal) and greedy[right] == proposal[right]:
            right += 1
        self.passes += 1
        for token in greedy[: right + 1]:
            self._append(token)
            if token in self.ends:
                break
        return right

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        if self.place is not None and list(self.draft[self.place : self.place + 1]) == [token]:
            self.place += 1
        else:
            self.place = self.after_pair.get(tuple(self.tokens[-2:]))


@dataclass
class Hits:
    """How often drafts were right in this call, with ten tokens assumed before the first."""

    right: int = 9
    checked: int = 10

    def width(self, lengths: Sequence[int], fixed_cost: int) -> int:
        """Positions a row in the next pass: as many as give most tokens for their cost.

        With p the share of tokens that were right, a proposal of n tokens yields p + ... + p^n
        expected tokens beside the one that a row gets anyway.

        Args:
            lengths: what each row could propose.
        """
        p = self.right / self.checked
        tokens = float(len(lengths))
        best, width = tokens / (fixed_cost + len(lengths)), 1
        for n in range(1, max(lengths) + 1):
            tokens += p**n * sum(length >= n for length in lengths)
            speed = tokens / (fixed_cost + len(lengths) * (n + 1))
            if speed > best:
                best, width = speed, n + 1
        return width


class Batch:
    """Rows that are decoded together, and their cache of keys and values.

    In the cache all rows end at the last column, and begin after padding. Between tokens of a row
    there are no gaps, since local attention counts columns.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        rows: list[Row],
        pad_token_id: int,
        hits: Hits,
        using: Using,
        choose: Choose,
    ) -> None:
        self.choose = choose
        self.module = module
        self.rows = rows
        self.pad_token_id = pad_token_id
        self.hits = hits
        self.using = using
        self.cache = DynamicCache()

    def advance(self) -> None:
        """One forward pass: each row gets a token and those of its draft that are right."""
        width = self._width()
        proposals = [row.proposal(width - 1) for row in self.rows]
        greedy = self._greedy(proposals, width)
        surplus = []
        for row, chosen, proposal in zip(self.rows, greedy, proposals, strict=True):
            right = row.take(chosen, proposal)
            self.hits.right += right
            self.hits.checked += min(right + 1, len(proposal))
            surplus.append(width - 1 - right)
        stay = [i for i, row in enumerate(self.rows) if not row.ended]
        changed = len(stay) < len(self.rows) or any(surplus)
        self.rows = [self.rows[i] for i in stay]
        if stay and changed:
            self._keep(stay, [surplus[i] for i in stay])

    def join(self, other: Batch) -> None:
        """Take over the rows of another batch."""
        if not self.rows:
            self.cache = other.cache
        elif other.rows:
            columns = max(self._columns(), other._columns())
            for mine, theirs in zip(layers_of(self.cache), layers_of(other.cache), strict=True):
                mine.keys = torch.cat([_padded(x.keys, columns) for x in (mine, theirs)])
                mine.values = torch.cat([_padded(x.values, columns) for x in (mine, theirs)])
        self.rows = self.rows + other.rows

    def _columns(self) -> int:
        return int(self.cache.get_seq_length())

    def _width(self) -> int:
        # No more columns than decoding without drafts would come to: models have a last position.
        most = max(len(row.prompt) + row.max_new_tokens for row in self.rows)
        room = most - max(row.size for row in self.rows)
        lengths = [len(row.proposal(room - 1)) for row in self.rows]
        width = self.hits.width(lengths, FIXED_COST.get(self.module.device.type, 256))
        # Beside a prompt a draft's first token costs little, and tells whether drafts are right.
        return max(width, 2) if self._columns() == 0 and max(lengths) > 0 else width

    def _greedy(self, proposals: Sequence[Sequence[int]], width: int) -> list[list[int]]:
        """Per row, the choice after its last token and after each of `width - 1` more."""
        unseen = [row.unseen() for row in self.rows]
        head = max(map(len, unseen))
        pad = self.pad_token_id
        ids = [
            [pad] * (head - len(u)) + [*u, *proposal] + [pad] * (width - 1 - len(proposal))
            for u, proposal in zip(unseen, proposals, strict=True)
        ]
        past = self._columns()
        columns = past + head + width - 1
        padding = [past + head - row.size for row in self.rows]
        device = self.module.device
        columns_T = torch.arange(columns, device=device)
        padding_B1 = torch.tensor(padding, device=device)[:, None]
        with self.using([row.number for row in self.rows]):
            output = self.module(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=(columns_T >= padding_B1).long(),
                position_ids=(columns_T[past:] - padding_B1).clamp(min=0),
                cache=self.cache,
                use_cache=True,
                logits_to_keep=width,
            )
        check_cache(self.module, self.cache, columns)
        return self.choose(self.rows, output.logits)

    def _keep(self, stay: Sequence[int], surplus: Sequence[int]) -> None:
        """Drop the rows that left, and columns after each row's last right token."""
        kept = max(row.size - 1 for row in self.rows)
        device = self.module.device
        starts_B = self._columns() - torch.tensor(surplus, device=device) - kept
        columns_BT = (starts_B[:, None] + torch.arange(kept, device=device)).clamp(min=0)
        rows_B1 = torch.tensor(stay, device=device)[:, None]
        for layer in layers_of(self.cache):
            layer.keys = layer.keys[rows_B1, :, columns_BT].transpose(1, 2)
            layer.values = layer.values[rows_B1, :, columns_BT].transpose(1, 2)


def check_cache(module: PreTrainedModel, cache: DynamicCache, columns: int) -> None:
    """Look whether a pass left its keys and values: a module that does not answers nonsense.

    Raises:
        RuntimeError: it did not.
    """
    if cache.get_seq_length() != columns:
        raise RuntimeError(
            f"{type(module).__name__} did not keep keys and values in the cache it was given, "
            f"with transformers {transformers.__version__}; install the version of constraints.txt"
        )


def layers_of(cache: DynamicCache) -> list[Any]:
    """Layers whose `keys` and `values` are (B, heads, T, D); transformers types them wider."""
    return cast(list[Any], cache.layers)


def _padded(states: Tensor, columns: int) -> Tensor:
    """Keys or values (B, heads, T, D) with columns before the first, which are not read."""
    return torch.nn.functional.pad(states, (0, 0, columns - states.shape[2], 0))
