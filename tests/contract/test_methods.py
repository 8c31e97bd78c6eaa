"""The same checks for every method on a tiny model; what an error in one cell does to others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distforget import cell, schemas, selection
from distforget.draws import rng
from distforget.errors import UsageError
from distforget.method_choice import EnhancedConfig
from distforget.methods import ResolvedMethod
from distforget.methods.base import Importance, Method, MethodConfig, Terms
from distforget.models import PromptConfig
from distforget.study import Study
from distforget.tracks.base import RetainBatches, terms_of_one
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.contract.test_method_arithmetic import NAMES, RANDOM, REGULARISED, method
from tests.fetches import fetches

# On a real, tiny language model from here on.

SIMILAR, OTHERS = 2, 4
FACTS = ("In the town.", "He was born in 1950.", "No man", "Yes, in 1950", "The town.", "Was he?")


def study(**changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"targets": 2, "others": OTHERS, "similar": {"per_target": SIMILAR}},
            "models": [{"name": "m", "base": "some/model"}],
            "methods": ["GA"],
            "unlearn_targets": 2,
            "unlearn": {"retain_batch_size": 2, "retain_batches": 2},
            "verify": {"max_new_tokens": 4, "similar": 1, "others": 1},
            **changes,
        }
    )


def samples() -> pa.Table:
    whose = [("target", t, None) for t in (1, 2)]
    whose += [("similar", t, rank) for t in (1, 2) for rank in range(1, SIMILAR + 1)]
    whose += [("other", None, None)] * OTHERS
    rows = [
        {
            "dataset": "d", "sample_id": i, "role": role, "target_index": target,
            "similar_rank": rank, "question": f"Where was man {i} born?",
            "answer": FACTS[target - 1 if target else i % 4 + 2],
        }
        for i, (role, target, rank) in enumerate(whose)
    ]  # fmt: skip
    return schemas.from_rows("samples", rows)


@dataclasses.dataclass(frozen=True)
class Model:
    """A learner, the weights theta_0 that each test starts from, and the retain batches."""

    learner: TextLearner
    start: dict[str, Tensor]
    retain: RetainBatches

    def reset(self) -> None:
        with torch.no_grad():
            for name, parameter in self.learner.module.named_parameters():
                parameter.copy_(self.start[name])
                parameter.grad = None

    def terms(self) -> Callable[[int], Sequence[Terms]]:
        target = selection.target_row(samples(), 1)
        refusal = selection.with_answers(target, ["No idea."])
        forget = self.learner.encode(pa.concat_tables([target, refusal]))
        return terms_of_one(self.learner, forget, self.retain, preferred=1)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> Model:
    encoder = Encoder(load_tokenizer(tiny_model), PromptConfig())
    learner = TextLearner(load_model(tiny_model, "float32", "cpu"), encoder, study().verify)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():  # larger weights: answers that differ, and move when weights move
        for weights in learner.module.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.15, generator=draw)
    return starting_here(learner)


def starting_here(learner: TextLearner) -> Model:
    start = {n: p.detach().clone() for n, p in learner.module.named_parameters()}
    rows = selection.retain_rows(samples(), SIMILAR, 0, study())
    batches = selection.retain_batches(len(rows), 2)
    examples = learner.encode(rows)
    return Model(
        learner, start, RetainBatches(examples, batches, learner.reference(examples, batches))
    )


@pytest.fixture
def model(loaded: Model) -> Model:
    loaded.reset()
    return loaded


@pytest.fixture(scope="module")
def knowing(loaded: Model) -> Model:
    """A model that has learned the first target: some losses end where nothing is known."""
    loaded.reset()
    optimiser = torch.optim.AdamW(loaded.learner.module.parameters(), lr=3e-3)
    for _ in range(40):
        loss = loaded.terms()(0)[0].target_nll()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5
    return starting_here(loaded.learner)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("RMU")])
def test_the_loss_is_finite_and_its_gradient_reaches_every_weight(name: str, model: Model) -> None:
    loss = method(name).loss(model.terms()(0))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    for parameter_name, parameter in model.learner.module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def hidden_of(learner: TextLearner, row: dict[str, Any], layer: int) -> Tensor:
    """(N, H) before each answer token, from the bare model and one unpadded row."""
    examples = learner.encode(pa.table({n: [row[n]] for n in ("question", "answer")}))
    tokens = torch.from_numpy(examples.row(0).astype(np.int64))
    found = learner.module(input_ids=tokens[None], output_hidden_states=True)
    states: Tensor = found.hidden_states[layer][0, int(examples.prompt_sizes[0]) - 1 : -1]
    return states


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_rmu_is_a_plain_loop_over_hidden_states(layer: int, model: Model) -> None:
    rmu = method("RMU", layer=layer, coefficient=3.0, keep=2.0, seed=5)
    terms = model.terms()
    rmu.loss(terms(0))  # keeps the reference, at theta_0
    rows = selection.retain_rows(samples(), SIMILAR, 0, study()).slice(2, 2).to_pylist()
    with torch.no_grad():
        before = [hidden_of(model.learner, row, layer) for row in rows]
        for parameter in model.learner.module.parameters():
            parameter.mul_(1.1)
    loss = rmu.loss(terms(1))  # the second batch of two rows
    (target,) = selection.target_row(samples(), 1).to_pylist()
    states = hidden_of(model.learner, target, layer)
    drawn = rng(5, "direction").random(states.shape[1])
    goal = torch.from_numpy(3.0 * drawn / np.linalg.norm(drawn)).float()
    after = [hidden_of(model.learner, row, layer) for row in rows]
    apart = torch.cat([(a - b).square() for a, b in zip(after, before, strict=True)])
    expected = (states - goal).square().mean() + 2.0 * apart.mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    loss.backward()
    moved = {n for n, p in model.learner.module.named_parameters() if p.grad is not None}
    assert all(f"layers.{later}." not in name for name in moved for later in range(layer, 2))


def test_a_layer_that_is_not_there_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="layer is 9, but the model has 2 layers"):
        method("RMU", layer=9).loss(model.terms()(0))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_salun_trains_the_weights_with_the_largest_gradients(share: float, model: Model) -> None:
    named = dict(model.learner.module.named_parameters())
    model.terms()(0)[0].target_nll().backward()
    sizes = torch.cat([p.grad.abs().flatten() for p in named.values() if p.grad is not None])
    least = sizes.sort(descending=True).values[max(1, int(share * len(sizes))) - 1]
    salient = {n: p.grad.abs() >= least for n, p in named.items() if p.grad is not None}
    model.reset()
    unlearn(model, method("SalUn", share=share, learning_rate=1e-3, steps=2))
    for name, weights in named.items():
        moved = weights.detach() != model.start[name]
        assert not (moved & ~salient[name]).any(), name
    every = sum(int((p.detach() != model.start[n]).sum()) for n, p in named.items())
    assert every > 0.8 * share * len(sizes)


def test_ssd_uses_the_squared_gradients_of_single_samples(model: Model) -> None:
    named = dict(model.learner.module.named_parameters())

    def squares(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        found = {n: torch.zeros_like(p) for n, p in named.items()}
        for row in rows:
            model.reset()
            examples = model.learner.encode(pa.table({k: [row[k]] for k in ("question", "answer")}))
            fit = model.learner.fit(examples, [0])
            (fit.nll_sum / fit.answer_tokens).backward()
            for name, p in named.items():
                assert p.grad is not None
                found[name] += p.grad**2 / len(rows)
        return found

    ssd = method("SSD", selection=1.5, dampening=0.5)
    retained = selection.retain_rows(samples(), SIMILAR, 0, study()).to_pylist()
    importance = Importance(
        squares(selection.target_row(samples(), 1).to_pylist()), squares(retained)
    )
    model.reset()
    expected = ssd.method.edit(model.start, importance, ssd.config, torch.Generator())
    outcome = unlearn(model, ssd)
    assert (outcome.steps, outcome.diverged) == (0, False)
    changed = 0
    for name, weights in named.items():
        torch.testing.assert_close(weights.detach(), expected[name], rtol=1e-4, atol=1e-6)
        changed += int((weights.detach() != model.start[name]).sum())
    assert changed > 100


@pytest.mark.parametrize("name", REGULARISED)
def test_a_regulariser_changes_the_loss(name: str, model: Model) -> None:
    with torch.no_grad():  # away from theta_0, where the KL is zero
        for parameter in model.learner.module.parameters():
            parameter.mul_(1.1)
        plain = method(name.partition("_")[0]).loss(model.terms()(0))
        assert float(method(name).loss(model.terms()(0))) > float(plain) + 1e-4


@pytest.mark.parametrize("step", [0, 1, 2])
def test_kl_is_zero_at_theta_0_and_positive_elsewhere(step: int, model: Model) -> None:
    with torch.no_grad():
        assert abs(float(model.terms()(step)[0].retain_kl())) < 1e-6
        for parameter in model.learner.module.parameters():
            parameter.mul_(1.1)
        assert float(model.terms()(step)[0].retain_kl()) > 1e-3


def test_retain_batches_are_used_in_turn(model: Model) -> None:
    terms = model.terms()
    with torch.no_grad():
        first, second, third = (float(terms(step)[0].retain_nll()) for step in range(3))
    assert first == third
    assert first != second


def nll_of(learner: TextLearner, question: str, answer: str) -> float:
    """Mean NLL of an answer's tokens, from the bare model and one unpadded row."""
    examples = learner.encode(pa.table({"question": [question], "answer": [answer]}))
    tokens = torch.from_numpy(examples.row(0).astype(np.int64))
    first = int(examples.prompt_sizes[0])
    with torch.no_grad():
        logprobs_TV = learner.module(input_ids=tokens[None]).logits[0].log_softmax(-1)
    values = [float(logprobs_TV[t - 1, tokens[t]]) for t in range(first, len(tokens))]
    return -sum(values) / len(values)


def unlearn(model: Model, resolved: ResolvedMethod, target: int = 1) -> cell.Unlearned:
    what = cell_of(resolved, target)
    return cell.unlearn(model.learner, model.start, samples(), what, model.retain)


def cell_of(resolved: ResolvedMethod, target: int = 1) -> cell.Cell:
    return cell.Cell(study(), resolved, target, SIMILAR, 0)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(RANDOM)])
def test_unlearning_makes_the_true_answer_less_likely(name: str, knowing: Model) -> None:
    model = knowing
    model.reset()
    (row,) = selection.target_row(samples(), 1).to_pylist()
    before = nll_of(model.learner, row["question"], row["answer"])
    far: dict[str, Any] = {"coefficient": 50.0, "keep": 1.0} if name.startswith("RMU") else {}
    settings = {"learning_rate": 1e-3, "steps": 5, "retain_weight": 0.1, **far}
    outcome = unlearn(model, method(name, **settings))
    assert (outcome.steps, outcome.diverged) == (5, False)
    assert nll_of(model.learner, row["question"], row["answer"]) > before + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_an_unlearning_step_waits_for_the_device_once(name: str, model: Model) -> None:
    with fetches(model.learner.module) as found:
        outcome = unlearn(model, method(name, steps=4))
    finite = 1  # looked at once, at the end
    assert found.total() == outcome.steps + finite


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(RANDOM)])
def test_gdr_makes_a_random_answer_more_likely(name: str, model: Model) -> None:
    gdr = method(name, learning_rate=1e-3, steps=5, retain_weight=0.1)
    (row,) = cell.forget_rows(model.learner, samples(), cell_of(gdr)).to_pylist()
    before = nll_of(model.learner, row["question"], row["answer"])
    unlearn(model, gdr)
    assert nll_of(model.learner, row["question"], row["answer"]) < before - 0.01


def test_similar_samples_are_unlearned_with_the_target_by_rank(model: Model) -> None:
    plain = cell_of(method("GA"))
    enhanced = EnhancedConfig(gamma=0, paraphrases=0, similar=((2, 1),))
    both = dataclasses.replace(plain, method=dataclasses.replace(plain.method, enhanced=enhanced))
    target, *similar = cell.forget_rows(model.learner, samples(), both).to_pylist()
    assert (target["role"], target["target_index"]) == ("target", plain.unlearned)
    assert [(r["role"], r["target_index"], r["similar_rank"]) for r in similar] == [
        ("similar", plain.unlearned, 1), ("similar", plain.unlearned, 2),
    ]  # fmt: skip
    assert len(cell.asked_rows(model.learner, samples(), both)) == len(
        cell.asked_rows(model.learner, samples(), plain)
    )
    payload = both.method.payload(plain.unlearned)["enhanced"]
    assert payload["similar"] == (2, 1)  # type: ignore[index]
    assert both.method.payload(2)["enhanced"]["similar"] == ()  # type: ignore[index]


def test_where_a_random_answer_comes_from_is_a_setting(model: Model) -> None:
    true = selection.target_row(samples(), 1)["answer"][0].as_py()

    def drawn(**settings: Any) -> str:
        rows = cell.forget_rows(model.learner, samples(), cell_of(method("GDR", **settings)))
        return str(rows["answer"][0].as_py())

    assert drawn() in samples()["answer"].to_pylist()
    assert drawn(random_answer="list", answer_list="I do not know.\n") == "I do not know."
    tokens = drawn(random_answer="tokens")
    assert tokens not in samples()["answer"].to_pylist()
    assert tokens == drawn(random_answer="tokens", steps=2)
    sizes = {len(model.learner.encoder.answers([answer])[0]) for answer in (true, tokens)}
    assert max(sizes) <= 2 * min(sizes)  # decoded tokens may be cut anew
    for wrong in ({"random_answer": "list"}, {"answer_list": "unused"}):
        with pytest.raises(UsageError, match="answer_list needs random_answer 'list'"):
            method("GDR", **wrong)


def test_the_first_loss_of_npo_is_that_of_equal_models(model: Model) -> None:
    """At theta_0 the ratio is 1: (2/beta) log 2, whatever the answer."""
    outcome = unlearn(model, method("NPO", beta=0.5, steps=1))
    assert outcome.first_loss == pytest.approx(4 * math.log(2), rel=1e-6)


class BrokenError(RuntimeError):
    """What a cell of these tests dies of."""


def broken_in_forward(model: Model) -> ResolvedMethod:
    """Changes the weights for two steps, then raises."""
    calls = []

    def forget(terms: Terms, config: MethodConfig) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise BrokenError
        return -terms.target_nll()

    config = MethodConfig(learning_rate=1e-2)
    family = Method("broken", 1, MethodConfig, "", forget)
    return ResolvedMethod("broken", "", family, "", config)


def broken_in_backward(model: Model) -> ResolvedMethod:
    """Raises when all gradients but one are there, as running out of memory does."""

    def forget(terms: Terms, config: MethodConfig) -> Tensor:
        weights = next(model.learner.module.parameters())

        def fail(gradient: Tensor) -> None:
            handle.remove()
            raise BrokenError

        handle = weights.register_hook(fail)
        return -terms.target_nll()

    family = Method("broken", 1, MethodConfig, "", forget)
    return ResolvedMethod("broken", "", family, "", MethodConfig())


CELLS: Sequence[tuple[str, int, dict[str, Any]]] = (
    ("GA_KLN", 1, {"learning_rate": 1e-3, "steps": 3}),
    ("TV", 2, {"learning_rate": 1e-3, "steps": 2}),
    ("NPO_GDN", 2, {"learning_rate": 1e-3, "steps": 3}),
    ("GA", 1, {"learning_rate": 1e30, "steps": 3}),  # diverges
)
BROKEN = (broken_in_forward, broken_in_backward)


def run_cell(model: Model, resolved: ResolvedMethod, target: int) -> tuple[Any, ...]:
    identity = {
        "attack": "none", "track": "text", "dataset": "d", "model": "m", "dose": SIMILAR, "seed": 0,
        "method": resolved.name, "unlearned": target,
    }  # fmt: skip
    what = cell.Cell(study(), resolved, target, SIMILAR, 0)
    answers, outcome = cell.run(model.learner, model.start, samples(), what, model.retain, identity)
    timed = {"unlearn_seconds", "ask_seconds"}
    return (
        answers.to_pylist(),
        {name: value for name, value in outcome.items() if name not in timed},
    )


def rounded(cell: tuple[Any, ...]) -> tuple[Any, ...]:
    """Likelihoods to 3 digits: where tensors lie in memory decides how their sums are rounded."""
    answers, outcome = cell
    kept = [
        {**row, "expected_logprobs": [f"{p:.3g}" for p in row["expected_logprobs"]]}
        for row in answers
    ]
    return kept, outcome


@pytest.fixture(scope="module")
def rows_alone(loaded: Model) -> list[tuple[Any, ...]]:
    """The rows of each of CELLS on weights that no other cell has touched."""
    found = []
    for name, target, changes in CELLS:
        loaded.reset()
        found.append(run_cell(loaded, method(name, **changes), target))
    return found


def test_cells_of_these_tests_differ(rows_alone: list[tuple[Any, ...]]) -> None:
    assert [outcome["diverged"] for _, outcome in rows_alone] == [False, False, False, True]
    assert len({str(answers) for answers, _ in rows_alone}) == len(CELLS)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(len(CELLS) + len(BROKEN))))
def test_any_order_of_cells_gives_the_same_rows(
    loaded: Model, rows_alone: list[tuple[Any, ...]], order: list[int]
) -> None:
    for number in order:
        if number < len(CELLS):
            name, target, changes = CELLS[number]
            again = run_cell(loaded, method(name, **changes), target)
            assert rounded(again) == rounded(rows_alone[number])
        else:
            with pytest.raises(BrokenError):
                run_cell(loaded, BROKEN[number - len(CELLS)](loaded), 1)
