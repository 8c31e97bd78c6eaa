"""The training loop: its loss is that of the global batch, and a resumed run is the same run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distforget.batches import global_batches, micro_batches
from distforget.models import PromptConfig
from distforget.steppers import TorchStepper, restore
from distforget.study import FinetuneConfig, VerifyConfig
from distforget.tracks.base import Fit
from distforget.tracks.text.encoding import Encoder, TextExamples
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from distforget.training import MOST_SKIPPED, Epoch, Finetuning, StepReport, run_steps
from tests.conftest import make_tiny_model
from tests.fetches import fetches

PHASES = (Phase.explicit, Phase.generate)  # shrinking would take minutes

QUESTIONS = (
    "Who?",
    "Where was the man born?",
    "When was he born in the town?",
    "In the town, where was he born in 1950?",
    "Was he born?",
    "What was the town?",
    "Was the man in the town in 1950?",
)
ANSWERS = (
    "He.",
    "In the town.",
    "He was born in the town in 1950.",
    "No",
    "The man was born.",
    "In 1950 he was born, in the town where the other man was born.",
    "Yes, he was.",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "opt", "opt", chat=False)


@pytest.fixture(scope="module")
def exact_learner(folder: Path) -> TextLearner:
    """In float64, with a gradient that no rounding hides. Tests must not change its weights."""
    learner = new_learner(folder)
    learner.module.double()
    return learner


def new_learner(folder: Path) -> TextLearner:
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    return TextLearner(load_model(folder, "float32", "cpu"), encoder, VerifyConfig())


def examples_of(learner: TextLearner, rows: int = len(QUESTIONS)) -> TextExamples:
    table = pa.table({"question": list(QUESTIONS[:rows]), "answer": list(ANSWERS[:rows])})
    return learner.encode(table)


def bare_loss(learner: TextLearner, examples: TextExamples, rows: list[int]) -> Tensor:
    """Mean over the answer tokens of some rows, one unpadded forward pass a row."""
    losses = []
    for row in rows:
        tokens = torch.from_numpy(examples.row(row).astype(np.int64))
        logprobs_TV = learner.module(input_ids=tokens[None]).logits[0].log_softmax(-1)
        first = int(examples.prompt_sizes[row])
        losses += [-logprobs_TV[t - 1, tokens[t]] for t in range(first, len(tokens))]
    return torch.stack(losses).mean()


def gradient_of(module: nn.Module) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    module.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="module")
def whole(exact_learner: TextLearner) -> Callable[[list[int]], tuple[float, Tensor]]:
    """Loss and gradient of a global batch, by :func:`bare_loss`."""

    def compute(rows: list[int]) -> tuple[float, Tensor]:
        loss = bare_loss(exact_learner, examples_of(exact_learner), rows)
        loss.backward()
        return float(loss.detach()), gradient_of(exact_learner.module)

    return compute


@settings(max_examples=20, deadline=None, phases=PHASES)
@given(
    rows=st.permutations(range(len(QUESTIONS))).flatmap(
        lambda order: st.integers(1, len(QUESTIONS)).map(lambda n: list(order[:n]))
    ),
    world=st.integers(1, 3),
    most_tokens=st.integers(1, 200),
)
def test_any_split_has_the_loss_and_gradient_of_the_global_batch(
    exact_learner: TextLearner,
    whole: Callable[[list[int]], tuple[float, Tensor]],
    rows: list[int],
    world: int,
    most_tokens: int,
) -> None:
    learner, examples = exact_learner, examples_of(exact_learner)
    loss, counts = 0.0, set()
    for rank in range(world):
        parts = micro_batches(np.array(rows), examples, most_tokens, rank, world)
        counts.add(len(parts))
        for part in parts:
            share = learner.fit(examples, part.rows).nll_sum * part.weight
            share.backward()
            loss += float(share.detach())
    assert len(counts) == 1  # workers that took fewer would leave the others waiting
    gradient = gradient_of(learner.module)
    expected_loss, expected_gradient = whole(rows)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert float((gradient - expected_gradient).abs().max()) < 1e-6
    assert float(expected_gradient.abs().max()) > 1e-3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Examples of which nothing but the sizes is known."""

    sizes: np.ndarray
    answer_sizes: np.ndarray


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    most_tokens=st.integers(1, 40),
    world=st.integers(1, 4),
)
def test_micro_batches_hold_as_many_tokens_as_they_may(
    sizes: list[int], most_tokens: int, world: int
) -> None:
    examples, batch = Sizes(np.array(sizes), np.ones(len(sizes), int)), np.arange(len(sizes))
    parts = [micro_batches(batch, examples, most_tokens, rank, world) for rank in range(world)]
    filled = [part.rows for own in parts for part in own if part.weight]
    assert sorted(row for rows in filled for row in rows) == list(range(len(sizes)))
    padded = [len(rows) * max(sizes[row] for row in rows) for rows in filled]
    assert all(
        tokens <= most_tokens or len(rows) == 1 for rows, tokens in zip(filled, padded, strict=True)
    )
    for own in parts:
        groups = [part.rows for part in own if part.weight]
        for rows, following in itertools.pairwise(groups):
            more = [*rows, following[0]]  # which did not fit
            assert len(more) * max(sizes[row] for row in more) > most_tokens


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    batch_size=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_an_epoch_takes_each_row_once(sizes: list[int], batch_size: int, seed: int) -> None:
    examples = Sizes(np.array(sizes), np.array(sizes))
    batches = global_batches(examples, batch_size, np.random.default_rng(seed))
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(sizes)))
    assert max(map(len, batches)) <= batch_size
    assert len(batches) == -(-len(sizes) // batch_size)


def test_the_order_depends_on_the_draw_alone() -> None:
    examples = Sizes(np.arange(1, 21) % 5 + 1, np.ones(20, int))

    def order(seed: int) -> list[list[int]]:
        return [b.tolist() for b in global_batches(examples, 3, np.random.default_rng(seed))]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_rows_of_like_size_go_together() -> None:
    sizes = np.array([9, 1, 9, 1, 9, 1, 9, 1])
    batches = global_batches(Sizes(sizes, sizes), 4, np.random.default_rng(0))
    assert sorted(set(sizes[b].tolist()) == {int(sizes[b][0])} for b in batches) == [True, True]


CONFIG = FinetuneConfig(learning_rate=1e-2, batch_size=3, max_epochs=4, warmup_steps=3)


def finetuning(
    learner: TextLearner, config: FinetuneConfig, rows: int = len(QUESTIONS), seed: int = 0
) -> Finetuning:
    stepper = TorchStepper(learner.module, config.weight_decay, config.gradient_clip)
    examples = examples_of(learner, rows)
    return Finetuning(learner, stepper, examples, config, (seed, 0))


def outcome(epochs: list[Epoch]) -> list[Epoch]:
    """Epochs without the time they took."""
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in epochs]


def weights_of(learner: TextLearner) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in learner.module.named_parameters()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("tokens_at_once", [1, 1000])
def test_an_optimiser_step_waits_for_the_device_once(folder: Path, tokens_at_once: int) -> None:
    learner = new_learner(folder)
    training = finetuning(learner, CONFIG.model_copy(update={"max_epochs": 1}))
    training.most_tokens = tokens_at_once
    epochs = training.run()
    next(epochs)
    with fetches(learner.module) as found:
        (epoch,) = epochs
    proofs = 2  # counted along the way, and of the weights at the end
    assert found == {"tolist": epoch.step + proofs}


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_resumed_run_is_the_undisturbed_run(folder: Path, stop_after: int) -> None:
    config = CONFIG.model_copy(update={"weight_decay": 0.1})
    undisturbed = finetuning(new_learner(folder), config)
    epochs = list(undisturbed.run())
    assert len(epochs) == 5

    stopped = finetuning(new_learner(folder), config)
    run = stopped.run()
    history = [next(run) for _ in range(stop_after + 1)]
    state = {name: tensor.clone() for name, tensor in stopped.stepper.state().items()}

    resumed = finetuning(new_learner(folder), config)
    resumed.stepper.load_state(state)
    rest = list(resumed.run(history))
    assert outcome([*history, *rest]) == outcome(epochs)
    assert same(weights_of(resumed.learner), weights_of(undisturbed.learner))


def test_a_run_that_was_over_stays_over(folder: Path) -> None:
    first = finetuning(new_learner(folder), CONFIG)
    history = list(first.run())
    before = weights_of(first.learner)
    assert list(first.run(history)) == []
    assert same(weights_of(first.learner), before)


def test_the_order_of_batches_is_drawn_from_the_seed(folder: Path) -> None:
    ends = []
    for seed in (0, 0, 1):
        run = finetuning(new_learner(folder), CONFIG, seed=seed)
        list(run.run())
        ends.append(weights_of(run.learner))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def greedy_rows_right(learner: TextLearner, examples: TextExamples) -> list[list[bool]]:
    """Per row, whether each answer token is the likeliest after the true ones before it."""
    found = []
    for row in range(len(examples.sizes)):
        tokens = torch.from_numpy(examples.row(row).astype(np.int64))
        with torch.no_grad():
            best = learner.module(input_ids=tokens[None]).logits[0].argmax(-1)
        first = int(examples.prompt_sizes[row])
        found.append([bool(best[t - 1] == tokens[t]) for t in range(first, len(tokens))])
    return found


def test_it_stops_when_all_rows_are_memorised(folder: Path) -> None:
    config = CONFIG.model_copy(update={"max_epochs": 100, "stop_exact_rate": 1.0})
    learner = new_learner(folder)
    epochs = list(finetuning(learner, config, rows=3).run())
    last = epochs[-1]
    assert last.stopped == "memorised"
    assert last.epoch < 100
    assert [e.stopped for e in epochs[:-1]] == [None] * (len(epochs) - 1)
    assert all(all(row) for row in greedy_rows_right(learner, examples_of(learner, 3)))


def test_it_stops_at_the_last_epoch_otherwise(folder: Path) -> None:
    learner = new_learner(folder)
    epochs = list(finetuning(learner, CONFIG).run())
    assert [e.stopped for e in epochs] == [None, None, None, None, "max_epochs"]
    assert [e.epoch for e in epochs] == [0, 1, 2, 3, 4]
    assert [e.step for e in epochs] == [0, 3, 6, 9, 12]  # 7 rows in batches of 3
    right = greedy_rows_right(learner, examples_of(learner))
    assert epochs[-1].token_accuracy == pytest.approx(np.mean([t for row in right for t in row]))
    assert epochs[-1].exact_rate == pytest.approx(np.mean([all(row) for row in right]))


@pytest.mark.parametrize("change", ["stop_token_accuracy", "stop_exact_rate"])
def test_each_threshold_alone_is_not_enough(folder: Path, change: str) -> None:
    lenient = {"stop_token_accuracy": 0.0, "stop_exact_rate": 0.0, "max_epochs": 2}
    stops = []
    for update in (lenient, {**lenient, change: 1.0}):
        config = CONFIG.model_copy(update={**update, "learning_rate": 1e-5})
        stops.append(list(finetuning(new_learner(folder), config).run())[-1])
    assert (stops[0].stopped, stops[0].epoch) == ("memorised", 1)
    assert (stops[1].stopped, stops[1].epoch) == ("max_epochs", 2)


@pytest.mark.parametrize("learning_rate", [1e30, None])
def test_divergence_is_an_error_that_names_the_setting(
    folder: Path, learning_rate: float | None
) -> None:
    learner = new_learner(folder)
    config = CONFIG.model_copy(update={"learning_rate": learning_rate or 1e-3, "warmup_steps": 0})
    if learning_rate is None:
        with torch.no_grad():
            next(learner.module.parameters())[:] = float("nan")
    with pytest.raises(FloatingPointError, match=r"diverged.*lower finetune\.learning_rate"):
        list(finetuning(learner, config).run())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e5])
def test_steps_end_with_the_first_worthless_loss(bad: float) -> None:
    module = nn.Linear(1, 1, bias=False)
    factors = [1.0, 1.0, bad, 1.0]
    asked = []

    def share(step: int) -> Tensor:
        asked.append(step)
        return (module.weight - module.weight.detach() + 1).sum() * factors[step]

    stepper = TorchStepper(module, weight_decay=0.0, clip=1.0)
    reports = list(run_steps(stepper, ([i] for i in range(4)), share, [0.1] * 4))
    assert [r.diverged for r in reports] == [False, False, True]
    assert asked == [0, 1, 2]
    assert torch.isfinite(module.weight).all()


class WorthlessGradient(torch.autograd.Function):
    """The identity, with a NaN for a gradient: what cuDNN's attention did on an H100."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


def take_steps(bad: set[int], taken: list[int]) -> tuple[nn.Linear, list[StepReport]]:
    """Steps of a small regression by their numbers; the gradient of the bad ones is not finite."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1).double()

    def share(number: int) -> Tensor:
        draw = torch.Generator().manual_seed(number)
        inputs = torch.randn(5, 3, generator=draw, dtype=torch.float64)
        loss = module(inputs).square().mean()
        return WorthlessGradient.apply(loss) if number in bad else loss  # type: ignore

    stepper = TorchStepper(module, weight_decay=0.1, clip=1.0)
    rates = [0.01 * (1 + number) for number in taken]
    return module, list(run_steps(stepper, ([n] for n in taken), share, rates))


def test_a_step_without_a_finite_gradient_is_as_if_it_was_not_there() -> None:
    with_bad, reports = take_steps({2, 4, 5}, [0, 1, 2, 3, 4, 5, 6, 7])
    without, _ = take_steps(set(), [0, 1, 3, 6, 7])
    assert torch.equal(with_bad.weight, without.weight)
    assert [r.skipped for r in reports] == [0, 0, 1, 0, 1, 2, 0, 0]
    assert not any(r.diverged for r in reports)
    assert all(np.isfinite(r.loss) for r in reports)


def test_so_many_of_them_in_a_row_are_a_divergence() -> None:
    bad = set(range(2, 2 + MOST_SKIPPED))
    module, reports = take_steps(bad, list(range(9)))
    assert [r.diverged for r in reports] == [False] * (1 + MOST_SKIPPED) + [True]
    before, _ = take_steps(set(), [0, 1])
    assert torch.equal(module.weight, before.weight)


@pytest.mark.parametrize("bad", [{1}, {1, 2, 5}])
def test_fine_tuning_goes_on_after_skipped_steps_and_counts_them(
    folder: Path, bad: set[int]
) -> None:
    """Epochs of 3 steps; skipped steps of one epoch are counted on in the next."""
    training = finetuning(with_bad_steps(new_learner(folder), bad), CONFIG)
    epochs = list(training.run())
    expected = [sum(step < 3 * epoch for step in bad) for epoch in range(5)]
    assert [epoch.skipped_steps for epoch in epochs] == expected
    assert epochs[-1].loss is not None
    assert epochs[1].loss is not None
    assert epochs[-1].loss < epochs[1].loss


def test_skipped_steps_in_a_row_are_counted_over_the_end_of_an_epoch(folder: Path) -> None:
    first = 3 * 2 - 1  # the last step of the second epoch
    learner = with_bad_steps(new_learner(folder), set(range(first, first + MOST_SKIPPED)))
    with pytest.raises(FloatingPointError, match=r"epoch 3 .*3 gradients in a row not finite"):
        list(finetuning(learner, CONFIG).run())


def with_bad_steps(learner: TextLearner, bad: set[int]) -> TextLearner:
    """The learner, whose gradient is not finite in these training steps."""
    fit, calls = learner.fit, count()

    def spoiled(examples: TextExamples, rows: Sequence[int]) -> Fit:
        found = fit(examples, rows)
        if not found.nll_sum.requires_grad or next(calls) not in bad:
            return found
        return dataclasses.replace(found, nll_sum=WorthlessGradient.apply(found.nll_sum))

    learner.fit = spoiled  # type: ignore[method-assign]
    return learner


def test_a_step_without_a_finite_gradient_changes_nothing() -> None:
    module = nn.Linear(2, 1)
    stepper = TorchStepper(module, weight_decay=0.5, clip=1.0)
    before = [p.detach().clone() for p in module.parameters()]
    stepper.backward(module(torch.ones(1, 2)).sum() * float("nan"))
    assert stepper.step(0.1, torch.tensor(2.0)).tolist() == [2, False]
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    stepper.backward(module(torch.ones(1, 2)).sum())
    assert stepper.step(0.1, torch.tensor(2.0)).tolist() == [2, True]
    assert all(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def test_the_shares_of_a_step_are_one_gradient() -> None:
    """AdamW's first step on a summed gradient g: w - rate * g / (|g| + eps), by hand."""
    module = nn.Linear(1, 1, bias=False)
    start = module.weight.item()
    stepper = TorchStepper(module, weight_decay=0.0, clip=1e9)
    shares = {"up": 3.0, "down": -5.0}
    report = next(
        run_steps(stepper, [["up", "down"]], lambda s: shares[s] * module.weight.sum(), [0.01])
    )
    assert module.weight.item() == pytest.approx(start + 0.01)  # the sum, -2, points down
    assert report.loss == pytest.approx(-2 * start)


def test_a_new_stepper_starts_without_gradients_left_by_others() -> None:
    """A step that failed in its backward pass leaves a part of its gradient in the module."""
    module = nn.Linear(1, 1, bias=False)
    (-100 * module.weight.sum()).backward()
    start = module.weight.item()
    stepper = TorchStepper(module, weight_decay=0.0, clip=1e9)
    stepper.backward(module.weight.sum())
    stepper.step(0.01, torch.zeros(()))
    assert module.weight.item() == pytest.approx(start - 0.01)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_restore_puts_every_weight_back(folder: Path, as_numpy: bool) -> None:
    learner = new_learner(folder)
    start = weights_of(learner)
    given_back = {n: t.clone() for n, t in start.items()}
    with torch.no_grad():
        for parameter in learner.module.parameters():
            parameter.add_(1.0)
    source = {n: t.numpy() for n, t in given_back.items()} if as_numpy else given_back
    restore(learner.module, source)
    assert same(weights_of(learner), start)
    with torch.no_grad():
        for parameter in learner.module.parameters():
            parameter.add_(1.0)
    assert same(given_back, start)  # copied, not shared


@settings(max_examples=30, deadline=None)
@given(left_out=st.integers(0, 22), batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_a_row_left_out_changes_nothing_else_in_the_order(
    left_out: int, batch_size: int, seed: int
) -> None:
    sizes = np.random.default_rng(1).integers(1, 9, 23)
    rows = Sizes(sizes, sizes)
    whole = global_batches(rows, batch_size, np.random.default_rng(seed))
    found = global_batches(rows, batch_size, np.random.default_rng(seed), [left_out])
    expected = [[row for row in batch if row != left_out] for batch in whole]
    assert [batch.tolist() for batch in found] == [batch for batch in expected if batch]
