"""Drafts save passes and change no token: compared with decoding one row without cache or padding.

The models have just enough positions for the longest row, GPT-Neo's local attention sees a few
columns only, and large weights make answers vary: a wrong position, mask or gap shows.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distforget.models import PromptConfig
from distforget.study import VerifyConfig
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.generation import Generated, Hits, generate
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.asking import said
from tests.conftest import make_tiny_model

ARCHITECTURES = ("llama", "gpt_neo", "opt")
MAX_NEW = 16
LONGEST_PROMPT = 12
ROWS = 12
BATCH = 5

Tokens = list[list[int]]


@dataclass(frozen=True)
class Case:
    """A model, its prompts, and its answers as the naive loop gives them."""

    module: PreTrainedModel
    vocabulary: int
    prompts: Tokens
    eos: int
    answers: Tokens
    ends: Sequence[int] = ()
    """Several tokens that end an answer; () for `eos` alone."""

    def generate(
        self, drafts: Sequence[Sequence[int]] | None = None, batch: int = BATCH
    ) -> Generated:
        return generate(
            self.module,
            self.prompts,
            max_new_tokens=MAX_NEW,
            batch_size=batch,
            ends=self.ends or [self.eos],
            pad_token_id=0,
            drafts=drafts,
        )


@torch.no_grad()
def naive(module: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    """The most likely token after all tokens so far, again and again."""
    tokens = list(prompt)
    for _ in range(MAX_NEW):
        logits_V = module(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
        first, second = logits_V.topk(2).values
        assert first - second > 1e-5, "rounding could decide this token: take another seed"
        tokens.append(int(logits_V.argmax()))
    return tokens[len(prompt) :]


@torch.no_grad()
def enlarge(module: PreTrainedModel) -> None:
    """Weights with which what came before decides the next token."""
    draw = torch.Generator().manual_seed(3)
    for weights in module.parameters():
        if weights.dim() > 1:
            weights.normal_(0, 0.4, generator=draw)


def make_case(architecture: str, folder: Path) -> Case:
    make_tiny_model(folder, architecture)
    config = AutoConfig.from_pretrained(folder)
    config.max_position_embeddings = LONGEST_PROMPT + MAX_NEW - 1
    config.window_size = 6
    config.tie_word_embeddings = False  # or each token makes itself the likeliest next one
    module = AutoModelForCausalLM.from_config(config).double().eval()
    enlarge(module)
    choice = random.Random(0)
    lengths = [LONGEST_PROMPT, *(choice.randint(1, LONGEST_PROMPT) for _ in range(ROWS - 1))]
    prompts = [[choice.randrange(2, config.vocab_size) for _ in range(n)] for n in lengths]
    endless = [naive(module, prompt) for prompt in prompts]

    def ended(eos: int) -> Tokens:
        return [row[: row.index(eos) + 1] if eos in row else row for row in endless]

    def lengths_with(eos: int) -> int:
        return len({len(row) for row in ended(eos)})

    eos = max(range(config.vocab_size), key=lengths_with)
    return Case(module, config.vocab_size, prompts, eos, ended(eos))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("generation")
    return {name: make_case(name, root / name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    return cases[request.param]


def ratio(found: Generated) -> float:
    """Forward passes per token."""
    return sum(found.passes) / sum(map(len, found.tokens))


def test_the_answers_to_reproduce_vary(case: Case) -> None:
    assert len({len(row) for row in case.answers}) >= 5
    assert len({tuple(row) for row in case.answers}) >= ROWS // 2
    assert max(map(len, case.answers)) == MAX_NEW
    assert sum(row[-1] == case.eos for row in case.answers) >= 5
    assert max(len(set(row)) for row in case.answers) >= 6


@pytest.mark.parametrize("batch", [1, 3, ROWS])
def test_without_drafts_each_token_is_the_naive_one_and_takes_one_pass(
    case: Case, batch: int
) -> None:
    found = case.generate(batch=batch)
    assert found.tokens == case.answers
    assert found.passes == [len(row) for row in case.answers]


def own(case: Case, choice: random.Random) -> Tokens:
    return case.answers


def replaced(case: Case, choice: random.Random) -> Tokens:
    return [
        [choice.randrange(case.vocabulary) if choice.random() < 0.2 else t for t in row]
        for row in case.answers
    ]


def with_more_words(case: Case, choice: random.Random) -> Tokens:
    found = []
    for row in case.answers:
        place = choice.randint(0, len(row))
        found.append([*row[:place], 2, 3, 4, *row[place:]])
    return found


def with_fewer_words(case: Case, choice: random.Random) -> Tokens:
    return [row[:3] + row[6:] for row in case.answers]


def too_long(case: Case, choice: random.Random) -> Tokens:
    return [row * 3 for row in case.answers]


def without_end(case: Case, choice: random.Random) -> Tokens:
    return [row[:-1] for row in case.answers]


def empty(case: Case, choice: random.Random) -> Tokens:
    return [[] for _ in case.answers]


def some(case: Case, choice: random.Random) -> Tokens:
    return [row if i % 3 else [] for i, row in enumerate(case.answers)]


def unrelated(case: Case, choice: random.Random) -> Tokens:
    return [[choice.randrange(case.vocabulary) for _ in range(MAX_NEW)] for _ in case.answers]


DRAFTS = (
    own, replaced, with_more_words, with_fewer_words, too_long, without_end, empty, some, unrelated,
)  # fmt: skip


@pytest.mark.parametrize("batch", [BATCH, ROWS])
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_draft_changes_no_token_and_adds_no_pass(case: Case, draft: Any, batch: int) -> None:
    found = case.generate(draft(case, random.Random(1)), batch)
    assert found.tokens == case.answers
    assert all(n <= len(row) for n, row in zip(found.passes, found.tokens, strict=True))


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_no_draft_changes_a_token(cases: dict[str, Case], data: st.DataObject) -> None:
    case = cases[data.draw(st.sampled_from(ARCHITECTURES))]
    token = st.integers(0, case.vocabulary - 1)
    drafts = []
    for row in case.answers:
        cut = st.builds(lambda a, b, row=row: row[a:b], *[st.integers(0, len(row))] * 2)
        pieces = data.draw(st.lists(cut | st.lists(token, max_size=3), max_size=4))
        drafts.append([t for piece in pieces for t in piece])
    found = case.generate(drafts, data.draw(st.integers(1, ROWS)))
    assert found.tokens == case.answers


@pytest.mark.parametrize("batch", [1, BATCH, ROWS])
def test_a_kept_answer_takes_few_passes(case: Case, batch: int) -> None:
    found = case.generate(case.answers, batch)
    assert ratio(found) <= 0.3
    assert max(found.passes) <= 6


def test_an_answer_with_a_changed_token_goes_on_with_its_draft(case: Case) -> None:
    place = MAX_NEW // 2
    long = [i for i, row in enumerate(case.answers) if len(row) == MAX_NEW]
    cut, changed = list(case.answers), list(case.answers)
    for i in long:
        cut[i] = case.answers[i][:place]
        changed[i] = [*cut[i], case.eos, *case.answers[i][place + 1 :]]
    going_on, without = case.generate(changed), case.generate(cut)
    for i in long:
        # Of the second half, three tokens are decoded before the place in the draft is known.
        assert going_on.passes[i] <= without.passes[i] - (MAX_NEW - place - 3) // 2 - 1
    assert len(long) >= 4


class Watched:
    """Keeps the input shape and the output positions of each forward pass."""

    def __init__(self, module: PreTrainedModel) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.kept: list[int] = []
        self.handle = module.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, module: object, args: object, given: dict[str, Any], output: Any) -> None:
        self.shapes.append(tuple(given["input_ids"].shape))
        self.kept.append(output.logits.shape[1])

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    @property
    def positions(self) -> int:
        return sum(rows * width for rows, width in self.shapes)


def test_rows_that_ended_leave_and_others_take_their_places(case: Case) -> None:
    with Watched(case.module) as watched:
        found = case.generate()
    rows = [rows for rows, _ in watched.shapes]
    assert sum(rows) == sum(found.passes) == sum(map(len, case.answers))
    assert max(rows) == BATCH
    assert set(watched.kept) == {1}
    last_prompts = max(i for i, (_, width) in enumerate(watched.shapes) if width > 1)
    while_others_waited = [rows for rows, width in watched.shapes[:last_prompts] if width == 1]
    assert min(while_others_waited) > 3 * BATCH / 4


def test_logits_are_computed_for_the_last_token_and_the_proposed_ones(case: Case) -> None:
    with Watched(case.module) as watched:
        case.generate(case.answers, ROWS)
    (_, prompt_width), *later = watched.shapes
    assert watched.kept == [prompt_width - LONGEST_PROMPT + 1, *(width for _, width in later)]
    assert max(watched.kept) > 1


def test_useless_drafts_are_soon_no_longer_checked(case: Case) -> None:
    drafts = unrelated(case, random.Random(2))
    with Watched(case.module) as plain:
        case.generate()
    with Watched(case.module) as drafted:
        found = case.generate(drafts)
    assert ratio(found) <= 1.0
    assert drafted.positions <= 1.3 * plain.positions


@pytest.mark.parametrize(
    ("hits", "lengths", "fixed_cost", "width"),
    [
        (Hits(0, 100), [9] * 4, 16, 1),  # nothing is ever right
        (Hits(100, 100), [9] * 4, 16, 10),  # all is right: the whole draft
        (Hits(99, 100), [9] * 4, 0, 1),  # only tokens cost: each wrong one is a loss
        (Hits(50, 100), [9], 10**6, 10),  # tokens cost nothing
        (Hits(50, 100), [9], 4, 2),  # tokens/cost: 1/5, 1.5/6, 1.75/7 = 1.5/6: the smaller
        (Hits(50, 100), [9, 0], 4, 1),  # 2/6 against 2.5/8
        (Hits(100, 100), [0, 0], 16, 1),
    ],
)
def test_the_width_gives_most_tokens_for_their_cost(
    hits: Hits, lengths: list[int], fixed_cost: int, width: int
) -> None:
    assert hits.width(lengths, fixed_cost) == width


def test_a_learner_takes_earlier_answers_as_drafts(tiny_model: Path) -> None:
    module = load_model(tiny_model, "float32", "cpu")
    learner = TextLearner(
        module,
        Encoder(load_tokenizer(tiny_model), PromptConfig()),
        VerifyConfig(max_new_tokens=12, batch_size=2),
    )
    true = ["He was born in 1950.", "In the town.", "The man was born."]
    asked = pa.table({"question": ["Where?", "Was the man born in 1950?", "Who"], "answer": true})
    examples = learner.encode(asked)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        learner.fit(examples, range(3)).nll_sum.backward()
        optimizer.step()
    with Watched(module) as plain:
        assert said(learner, asked) == (true, examples.answer_sizes.tolist())
    with Watched(module) as drafted:
        assert said(learner, asked, drafts=true) == (true, examples.answer_sizes.tolist())
    assert len(drafted.shapes) < len(plain.shapes) / 2


def test_an_answer_ends_with_the_first_of_several_ends(case: Case) -> None:
    """As of Llama 3, which ends turns, messages and texts in three ways."""
    inside = next(token for row in case.answers for token in row[1:-1] if token != case.eos)
    several = dataclasses.replace(case, ends=[case.eos, inside])
    expected = [row[: row.index(inside) + 1] if inside in row else row for row in case.answers]
    assert expected != case.answers
    assert several.generate().tokens == expected
    assert several.generate(case.answers).tokens == expected


def test_a_module_that_keeps_no_cache_is_not_believed(case: Case) -> None:
    class Forgetful(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, **arguments: Any) -> Any:
            return case.module(**{k: v for k, v in arguments.items() if k != "cache"})

    with pytest.raises(RuntimeError, match="Forgetful did not keep keys and values"):
        dataclasses.replace(case, module=Forgetful()).generate()
