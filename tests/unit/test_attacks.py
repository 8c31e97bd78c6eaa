"""Attacks against naive loops, and adapters merged for them against dense weights."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from distforget.attacks import attacks, name_of
from distforget.attacks.quantise import QuantiseConfig, rounded, run
from tests.adapted import Setting, logits_of


class Experts(nn.Module):
    """A layer that holds two matrices in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.ones(2, 3, 4))


def naive(weight: Tensor, bits: int) -> Tensor:
    """Each value at the nearest of the levels that it may have, one by one."""
    found = weight.clone().flatten(1)
    largest = 2 ** (bits - 1) - 1
    for channel in found:
        scale = float(channel.abs().max()) / largest
        levels = [scale * level for level in range(-largest, largest + 1)]
        for place, value in enumerate(channel.tolist()):
            channel[place] = min(levels, key=lambda level: abs(level - value))
    return found.view_as(weight)


@given(st.integers(2, 8), st.integers(0, 2**31), st.sampled_from([(1, 3), (4, 5), (3, 2, 3, 3)]))
def test_each_weight_is_at_the_nearest_level(bits: int, seed: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = rounded(weight, bits)
    torch.testing.assert_close(found, naive(weight, bits))
    assert all(len(channel.unique()) <= 2**bits - 1 for channel in found)
    torch.testing.assert_close(rounded(found, bits), found)  # there already


def test_a_channel_of_zeros_stays() -> None:
    assert torch.equal(rounded(torch.zeros(2, 3), 4), torch.zeros(2, 3))


def test_embeddings_biases_and_the_output_layer_stay(llama: Setting) -> None:
    module = llama.with_adapters(llama.slots.config).module
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    run(module, QuantiseConfig(bits=3))
    for name, weight in module.state_dict().items():
        changed = "proj" in name and "lora" not in name
        assert torch.equal(weight, before[name]) != changed, name


def test_channels_of_gpt2_are_columns() -> None:
    layer = Conv1D(3, 5)
    expected = rounded(layer.weight.detach().T, 3).T
    run(nn.Sequential(layer), QuantiseConfig(bits=3))
    assert torch.equal(layer.weight, expected)


def test_a_layer_that_it_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match=r"but 0\.packed belongs to a Experts"):
        run(nn.Sequential(Experts()), QuantiseConfig())


def test_a_merged_adapter_is_the_dense_model_and_leaves_nothing_behind(exact: Setting) -> None:
    learner, slots = exact.learner, exact.slots
    slots.load([exact.start])
    before = logits_of(learner.module)
    expected = logits_of(exact.dense(exact.merged(exact.start)))
    with learner.merged() as module:
        torch.testing.assert_close(logits_of(module), expected, rtol=0, atol=1e-12)
        run(module, QuantiseConfig(bits=2))
        assert (logits_of(module) - expected).abs().max() > 0.1
    assert torch.equal(logits_of(learner.module), before)
    with suppress(KeyboardInterrupt), learner.merged() as module:
        run(module, QuantiseConfig(bits=2))
        raise KeyboardInterrupt
    assert torch.equal(logits_of(learner.module), before)


def test_names_of_attacks_can_be_told_apart() -> None:
    names = [name_of(QuantiseConfig(bits=bits)) for bits in range(2, 9)]
    assert len(set(names)) == len(names)
    assert "quantise" in attacks()
