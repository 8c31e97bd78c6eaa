"""Adapters against peft's own layers and against dense weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from distforget.errors import UsageError
from distforget.steppers import TorchStepper
from distforget.study import AdapterConfig, FinetuneConfig
from distforget.tracks.text.learner import TextLearner
from distforget.training import Finetuning
from tests.adapted import SLOTS, Setting, assert_equal, logits_of, trained
from tests.contract.test_methods import samples, study


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
