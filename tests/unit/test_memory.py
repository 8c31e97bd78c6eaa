"""The estimate of what a token needs in training, against what autograd really keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distforget.engine.memory import STEP, token_bytes, tokens_at_once
from distforget.placement import Placement
from distforget.training import TOKENS_AT_ONCE


def saved_bytes(module: torch.nn.Module, tokens: int) -> int:
    """Bytes of all tensors that a forward pass keeps for its backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ids = torch.zeros(1, tokens, dtype=torch.long)
        found = module(input_ids=ids, use_cache=False, logits_to_keep=1)
        assert found.logits.requires_grad
        return sum(kept.values())


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "opt"])
def test_the_layers_part_is_near_what_is_kept(architecture: str) -> None:
    config = AutoConfig.for_model(
        architecture, hidden_size=256, intermediate_size=1024, ffn_dim=1024, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, vocab_size=64, word_embed_proj_dim=256,
    )  # fmt: skip
    module = AutoModelForCausalLM.from_config(config)
    module.train()
    kept = (saved_bytes(module, 256) - saved_bytes(module, 128)) / 128
    assert 0.7 * kept < token_bytes(config, 4, checkpointing=False) < 2.5 * kept


def test_checkpointing_needs_a_fraction(tiny_model: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    config.num_hidden_layers = 32
    assert token_bytes(config, 2, True) < token_bytes(config, 2, False) / 8


def test_what_is_asked_for_is_taken(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert tokens_at_once(Placement(), module, 1) == TOKENS_AT_ONCE
    assert tokens_at_once(Placement(train_tokens=77), module, 1) == 77


def test_a_device_is_filled_but_for_a_reserve(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = AutoModelForCausalLM.from_pretrained(tiny_model).to("meta")
    each = token_bytes(module.config, 4, False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (each * 10_000, 0))
    found = tokens_at_once(Placement(), module, 1)
    assert found % STEP == 0
    assert 5000 <= found <= 7000
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    assert tokens_at_once(Placement(), module, 1) == STEP
