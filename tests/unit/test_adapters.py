"""Adapters against peft's own and against dense weights; a batch of cells against cells alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from distforget import cell, cell_batch, methods, selection
from distforget.cell import Cell
from distforget.methods import ResolvedMethod
from distforget.study import AdapterConfig, FinetuneConfig, MethodChoice, PromptConfig, UsageError
from distforget.tracks.base import RetainBatches
from distforget.tracks.text.adapters import Adapters
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from distforget.training import Finetuning, TorchStepper
from tests.conftest import make_tiny_model
from tests.contract.test_methods import SIMILAR, samples, study

torch.set_num_threads(1)

ARCHITECTURES = ("llama", "gpt_neo", "opt")
CONFIG = AdapterConfig(rank=3, alpha=5.0)
SCALE = 5.0 / 3
SLOTS = 4


class Setting:
    """A tiny base model with larger weights than fresh ones, and the adapters that tests use."""

    def __init__(self, folder: Path, dtype: str) -> None:
        # GPT-Neo multiplies queries and keys in float32, whatever its weights are.
        self.tolerance = 1e-6 if folder.name == "gpt_neo" else 1e-11
        self.encoder = Encoder(load_tokenizer(folder), PromptConfig())
        self.base = load_model(folder, "float32", "cpu")
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weights in self.base.parameters():
                if weights.dim() > 1:
                    weights.normal_(0, 0.15, generator=draw)
        self.base.to(getattr(torch, dtype))
        self.learner = self.with_adapters(CONFIG)
        self.fresh = self.slots.weights(0)
        self.pool = [self.drawn(seed) for seed in range(SLOTS)]
        self.start = self.pool[0]
        self.slots.load([self.start])
        rows = selection.retain_rows(samples(), SIMILAR, 0, study())
        examples, batches = self.learner.encode(rows), selection.retain_batches(len(rows), 2)
        reference = self.learner.reference(examples, batches)
        self.retain = RetainBatches(examples, batches, reference)

    def with_adapters(self, config: AdapterConfig) -> TextLearner:
        model = copy.deepcopy(self.base)
        slots = Adapters(model, config, torch.Generator().manual_seed(2))
        return TextLearner(model, self.encoder, study().verify, slots)

    @property
    def slots(self) -> Adapters:
        assert self.learner.slots is not None
        return self.learner.slots

    def drawn(self, seed: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {
            name: torch.empty_like(w).normal_(0, 0.2, generator=draw)
            for name, w in self.fresh.items()
        }

    def peft(self, weights: Mapping[str, Tensor]) -> PeftModel:
        """The same model with one adapter, in peft's own layers."""
        lora = LoraConfig(
            r=CONFIG.rank, lora_alpha=5, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        found = get_peft_model(copy.deepcopy(self.base), lora).to(self.base.dtype)
        assert not set_peft_model_state_dict(found, dict(weights)).unexpected_keys
        return found

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Dense weights W + alpha/rank * B A of the base model."""
        found = {name: p.detach().clone() for name, p in self.base.named_parameters()}
        for name, w in weights.items():
            if name.endswith("lora_A.weight"):
                b = weights[name.replace("lora_A", "lora_B")]
                plain = name.removeprefix("base_model.model.").replace("lora_A.", "")
                found[plain] = found[plain] + SCALE * b @ w
        return found

    def dense(self, weights: Mapping[str, Tensor]) -> nn.Module:
        model = copy.deepcopy(self.base)
        model.load_state_dict(weights, strict=False)
        return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make_tiny_model(folder / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exact(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Setting:
    return Setting(folders[request.param], "float64")


@pytest.fixture(scope="module")
def llama(folders: dict[str, Path]) -> Setting:
    return Setting(folders["llama"], "float64")


IDS = torch.tensor([[5, 9, 40, 3], [7, 7, 100, 61], [1, 200, 2, 17]])


@torch.no_grad()
def logits_of(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    found: Tensor = model(input_ids=ids).logits
    return found


# Adapters alone.


def test_a_fresh_adapter_changes_no_logit(exact: Setting) -> None:
    exact.slots.load([exact.fresh])
    assert torch.equal(logits_of(exact.learner.module), logits_of(exact.base))


def test_a_fresh_adapter_is_drawn_from_its_seed_alone(llama: Setting) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        return llama.slots.fresh(torch.Generator().manual_seed(seed))

    torch.manual_seed(3)
    first = drawn(5)
    torch.manual_seed(4)
    again, other = drawn(5), drawn(6)
    for name, weights in first.items():
        assert torch.equal(weights, again[name])
        if "lora_A" in name:
            assert not torch.equal(weights, other[name])
            # Uniform in +-1/sqrt(I): variance 1/(3 I).
            assert weights.abs().max() <= weights.shape[1] ** -0.5
            assert weights.std() == pytest.approx((3 * weights.shape[1]) ** -0.5, rel=0.3)
        else:
            assert not weights.any()


def test_adapted_are_the_layers_that_peft_adapts(exact: Setting) -> None:
    names = {n.replace(".default", "") for n, p in exact.peft(exact.start).named_parameters()
             if p.requires_grad}  # fmt: skip
    assert set(exact.slots.weights(0)) == names


def test_only_adapters_take_gradients(exact: Setting) -> None:
    trained = {n for n, p in exact.learner.module.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"lora_A", "lora_B"}
    assert len(trained) == 2 * len(exact.slots.layers)


def test_logits_are_those_of_dense_weights(exact: Setting) -> None:
    exact.slots.load([exact.start])
    expected = logits_of(exact.dense(exact.merged(exact.start)))
    torch.testing.assert_close(logits_of(exact.learner.module), expected, rtol=0, atol=1e-12)


def test_a_written_adapter_is_the_same_in_peft(exact: Setting, tmp_path: Path) -> None:
    exact.slots.load([exact.start])
    exact.slots.write(exact.start, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(exact.base), str(tmp_path)).double()
    torch.testing.assert_close(logits_of(loaded), logits_of(exact.learner.module))
    assert (logits_of(loaded) - logits_of(exact.base)).abs().max() > 0.1
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert all(torch.equal(exact.start[name], w) for name, w in stored.items())


def test_target_modules_name_the_adapted_layers(llama: Setting) -> None:
    learner = llama.with_adapters(AdapterConfig(target_modules=("v_proj", "mlp.up_proj")))
    assert learner.slots is not None
    assert {name.split(".", 3)[3] for name in learner.slots.layers} == {
        "self_attn.v_proj", "mlp.up_proj",
    }  # fmt: skip


@pytest.mark.parametrize("target", ["proj", "c_attn", "lm_head"])
def test_a_target_that_fits_no_layer_is_refused(llama: Setting, target: str) -> None:
    with pytest.raises(UsageError, match=rf"target_modules: '{target}' fits no .* has: down_proj"):
        llama.with_adapters(AdapterConfig(target_modules=("v_proj", target)))


@settings(max_examples=20, deadline=None)
@given(
    slot_of_row=st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=8),
    places=st.permutations(range(SLOTS)),
)
def test_each_row_is_computed_with_its_slot_wherever_that_lies(
    exact: Setting, slot_of_row: list[int], places: list[int]
) -> None:
    """Weights number i lie in slot places[i]; the oracle is dense weights, row by row."""
    shuffled = sorted(range(SLOTS), key=lambda i: places[i])
    exact.slots.load([exact.pool[i] for i in shuffled])
    ids = torch.arange(4 * len(slot_of_row)).view(-1, 4)
    with exact.slots.rows([places[i] for i in slot_of_row]):
        found = logits_of(exact.learner.module, ids)
    for row, number in enumerate(slot_of_row):
        expected = logits_of(exact.dense(exact.merged(exact.pool[number])), ids[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=1e-12)


def test_rows_end_with_their_context_even_after_an_error(llama: Setting) -> None:
    llama.slots.load(llama.pool)
    before = logits_of(llama.learner.module)
    with llama.slots.rows([3, 2, 1]):
        inside = logits_of(llama.learner.module)
    with pytest.raises(RuntimeError), llama.slots.rows([3, 2, 1]):
        raise RuntimeError
    assert not torch.equal(inside, before)
    assert torch.equal(logits_of(llama.learner.module), before)


def test_a_batch_of_other_rows_than_announced_is_refused(llama: Setting) -> None:
    with llama.slots.rows([0, 0]), pytest.raises(ValueError, match=r"3 rows.*given for 2"):
        logits_of(llama.learner.module)


# Training.


def test_finetuning_is_that_of_peft(exact: Setting) -> None:
    config = FinetuneConfig(learning_rate=1e-2, batch_size=4, max_epochs=2)
    exact.slots.load([exact.start])
    alone = TextLearner(exact.peft(exact.start), exact.encoder, study().verify)
    histories = []
    for learner in (exact.learner, alone):
        examples = learner.encode(samples())
        stepper = TorchStepper(learner.module, weight_decay=0.1, clip=0.5)
        epochs = Finetuning(learner, stepper, examples, config, (0, 0)).run()
        histories.append(list(epochs))
    for mine, theirs in zip(*(history[1:] for history in histories), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=exact.tolerance)
        assert mine.token_accuracy == theirs.token_accuracy
    assert_equal(exact.slots.weights(0), trained(alone), exact.tolerance)


def trained(learner: TextLearner) -> dict[str, Tensor]:
    return {
        name.replace(".default", ""): p.detach()
        for name, p in learner.module.named_parameters()
        if p.requires_grad
    }


def assert_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> None:
    assert set(found) == set(expected)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=tolerance, msg=name)


CELLS: Sequence[tuple[str, int, dict[str, Any]]] = (
    ("GA_KLN", 1, {"learning_rate": 1e-3, "steps": 3}),
    ("GA_GDN", 2, {"learning_rate": 3e-3, "steps": 5, "gradient_clip": 0.1}),
    ("NPO_KLN", 1, {"learning_rate": 2e-3, "steps": 1}),
    ("NPO_GDN", 2, {"learning_rate": 1e-3, "steps": 4, "beta": 0.3}),
    ("GDR", 1, {"learning_rate": 1e-2, "steps": 4}),
    ("GDR_KLN", 2, {"learning_rate": 2e-3, "steps": 3, "retain_weight": 0.2}),
    ("GDR_GDN", 1, {"learning_rate": 1e-3, "steps": 2}),
    ("TV", 2, {"learning_rate": 5e-3, "steps": 3, "scale": 0.7}),
)
"""The methods of the paper; targets 1 and 2 have answers of different lengths."""


def cells_of(chosen: Sequence[tuple[str, int, dict[str, Any]]]) -> list[Cell]:
    return [
        Cell(study(), method(name, **changes), target, SIMILAR, 0)
        for name, target, changes in chosen
    ]


def method(name: str, **changes: Any) -> ResolvedMethod:
    return methods.resolve(MethodChoice(name=name, settings=tuple(sorted(changes.items()))))


def together(
    setting: Setting, cells: Sequence[Cell]
) -> tuple[list[cell.Unlearned], list[dict[str, Tensor]]]:
    found = cell_batch.unlearn(setting.learner, setting.start, samples(), cells, setting.retain)
    return found, [setting.slots.weights(slot) for slot in range(len(cells))]


def with_peft(setting: Setting, what: Cell) -> tuple[cell.Unlearned, TextLearner]:
    """One cell alone on peft's layers, with torch's AdamW; without its finish."""
    family = dataclasses.replace(what.method.method, finish=None)
    what = dataclasses.replace(what, method=dataclasses.replace(what.method, method=family))
    learner = TextLearner(setting.peft(setting.start), setting.encoder, study().verify)
    start = {name: p.detach().clone() for name, p in learner.module.named_parameters()}
    return cell.unlearn(learner, start, samples(), what, setting.retain), learner


def assert_as_alone(setting: Setting, cells: Sequence[Cell], tolerance: float) -> None:
    outcomes, weights = together(setting, cells)
    for what, outcome, mine in zip(cells, outcomes, weights, strict=True):
        expected, learner = with_peft(setting, what)
        assert (outcome.steps, outcome.diverged) == (expected.steps, expected.diverged)
        assert outcome.first_loss == pytest.approx(expected.first_loss, rel=tolerance)
        assert outcome.last_loss == pytest.approx(expected.last_loss, rel=tolerance)
        reached = trained(learner)
        # Far more than the tolerance: the cell has moved.
        assert max(float((reached[n] - w).abs().max()) for n, w in setting.start.items()) > 9e-4
        if what.method.method.finish is None:
            assert_equal(mine, reached, tolerance)
        else:
            finish, start = what.method.method.finish, setting.merged(setting.start)
            dense = finish(start, setting.merged(reached), what.method.config)
            assert_equal(setting.merged(mine), dense, tolerance)


def test_all_methods_in_one_batch_are_as_each_alone(exact: Setting) -> None:
    assert_as_alone(exact, cells_of(CELLS), exact.tolerance)


def test_in_float32_they_agree_within_1e_5(folders: dict[str, Path]) -> None:
    assert_as_alone(Setting(folders["llama"], "float32"), cells_of(CELLS), 1e-5)


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(len(CELLS))), size=st.integers(1, len(CELLS)))
def test_a_cell_does_not_depend_on_those_beside_it(
    llama: Setting, order: list[int], size: int
) -> None:
    chosen = order[:size]
    _, everyone = together(llama, cells_of(CELLS))
    _, some = together(llama, cells_of([CELLS[i] for i in chosen]))
    for number, weights in zip(chosen, some, strict=True):
        assert_equal(weights, everyone[number], 1e-9)


def broken(factor: float) -> ResolvedMethod:
    """Gradient ascent whose loss is worthless from the second step on."""
    losses = []

    def forget(terms: Any, config: Any) -> Tensor:
        losses.append(-terms.target_nll())
        return losses[-1] * (factor if len(losses) > 1 else 1.0)

    known = method("GA", learning_rate=1e-3)
    return dataclasses.replace(known, method=dataclasses.replace(known.method, forget=forget))


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e6])
def test_a_cell_that_diverges_stops_and_touches_no_other(llama: Setting, factor: float) -> None:
    good = cells_of(CELLS[:3])
    bad = Cell(study(), broken(factor), 1, SIMILAR, 0)
    outcomes, weights = together(llama, [good[0], bad, *good[1:]])
    assert [outcome.diverged for outcome in outcomes] == [False, True, False, False]
    assert outcomes[1].steps == 2
    _, alone = together(llama, good)
    for mine, expected in zip([weights[0], *weights[2:]], alone, strict=True):
        assert_equal(mine, expected, 1e-9)
    (_, (one_step,)) = together(llama, cells_of([("GA", 1, {"learning_rate": 1e-3, "steps": 1})]))
    if not math.isfinite(factor):  # then the second step was not taken
        assert_equal(weights[1], one_step, 1e-9)


def test_a_cell_of_huge_steps_touches_no_other(llama: Setting) -> None:
    """Its weights, logits and gradients overflow; nothing of it is in the others' rows."""
    huge = ("GA_KLN", 1, {"learning_rate": 1e200, "steps": 4})
    outcomes, weights = together(llama, cells_of([huge, *CELLS]))
    assert [outcome.diverged for outcome in outcomes] == [True, *[False] * len(CELLS)]
    _, alone = together(llama, cells_of(CELLS))
    for mine, expected in zip(weights[1:], alone, strict=True):
        assert_equal(mine, expected, 1e-9)


def test_tv_is_stored_at_twice_the_rank_and_peft_reads_it(llama: Setting, tmp_path: Path) -> None:
    _, (weights, other) = together(llama, cells_of([CELLS[-1], CELLS[0]]))
    assert {w.shape[0] for n, w in weights.items() if "lora_A" in n} == {2 * CONFIG.rank}
    assert {w.shape[0] for n, w in other.items() if "lora_A" in n} == {CONFIG.rank}
    llama.slots.write(weights, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2 * CONFIG.rank
    loaded = PeftModel.from_pretrained(copy.deepcopy(llama.base), str(tmp_path)).double()
    torch.testing.assert_close(logits_of(loaded), logits_of(llama.learner.module))


# Asking, and whole cells.


def test_answers_of_many_cells_at_once_are_those_of_each_alone(exact: Setting) -> None:
    asked = [samples().slice(slot, 3 + slot) for slot in range(SLOTS)]
    exact.slots.load(exact.pool)
    identities = [identity("GA", slot) for slot in range(SLOTS)]
    found = cell_batch.ask(exact.learner, asked, identities)
    for slot in range(SLOTS):
        model = exact.dense(exact.merged(exact.pool[slot]))
        alone = TextLearner(model, exact.encoder, study().verify)
        expected = cell.ask(alone, asked[slot], identities[slot])
        assert {n: t.to_pylist() for n, t in found[slot].items()} == {
            n: t.to_pylist() for n, t in expected.items()
        }
    first = [tables["answers"]["answer"][0].as_py() for tables in found]
    assert len(set(first)) == SLOTS  # the adapters tell other things


def identity(name: str, target: int) -> dict[str, Any]:
    return {
        "track": "text", "dataset": "d", "model": "m", "dose": SIMILAR, "seed": 0,
        "method": name, "unlearned": target, "phase": "post_unlearn",
    }  # fmt: skip


def test_whole_cells_together_give_the_rows_of_whole_cells_alone(llama: Setting) -> None:
    cells = cells_of([CELLS[0], CELLS[4], CELLS[7]])
    named = [identity(what.method.name, what.unlearned) for what in cells]

    def rows(found: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Any, ...]:
        tables, columns = found
        plain = {n: v for n, v in columns.items() if not n.endswith("seconds")}
        for name in ("first_loss", "last_loss"):
            plain[name] = pytest.approx(plain[name], rel=1e-9)
        return {name: table.to_pylist() for name, table in tables.items()}, plain

    def run(some: slice) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return cell_batch.run(
            llama.learner, llama.start, samples(), cells[some], llama.retain, named[some]
        )

    for number, found in enumerate(run(slice(None))):
        (alone,) = run(slice(number, number + 1))
        assert rows(found)[0] == rows(alone)[0]
        assert found[1]["first_loss"] == rows(alone)[1]["first_loss"]
        assert found[1]["last_loss"] == rows(alone)[1]["last_loss"]


def test_a_model_without_slots_cannot_share_a_batch(llama: Setting) -> None:
    learner = TextLearner(copy.deepcopy(llama.base), llama.encoder, study().verify)
    with pytest.raises(ValueError, match="slots of adapters"):
        cell_batch.unlearn(learner, {}, samples(), cells_of(CELLS[:1]), llama.retain)
