"""Loaded language models: training mode changes nothing, so checkpointing may be a placement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distforget.tracks.text.models import load_model
from tests.conftest import make_tiny_model


def gradients(module: nn.Module) -> tuple[Tensor, list[Tensor]]:
    ids = torch.arange(2, 42).reshape(2, 20)
    module.zero_grad()
    logits = module(input_ids=ids, use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_attention_never_takes_cudnn(tmp_path: Path) -> None:
    """Its backward pass returns NaN for some padded lengths (pytorch issue 196678)."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_model(make_tiny_model(tmp_path), "float32", "cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo", "opt"])
def test_gradient_checkpointing_changes_neither_logits_nor_gradients(
    architecture: str, tmp_path: Path
) -> None:
    module = load_model(make_tiny_model(tmp_path, architecture), "float32", "cpu")
    plain_logits, plain = gradients(module)
    module.gradient_checkpointing_enable()
    module.train()
    logits, checkpointed = gradients(module)
    torch.testing.assert_close(logits, plain_logits)
    assert len(plain) == len(checkpointed) > 0
    for expected, found in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(found, expected)
