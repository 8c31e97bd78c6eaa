"""How many tokens of a language model a device takes at once in training."""

from __future__ import annotations

from typing import Any

import torch

from distforget.placement import Placement
from distforget.training import TOKENS_AT_ONCE

SHARE = 0.7
"""Share of the free memory that activations may take: estimates are not exact, and peaks differ."""

STEP = 1024
"""Budgets are whole numbers of this many tokens."""


def tokens_at_once(placement: Placement, module: torch.nn.Module, world: int) -> int:
    """Tokens of a forward pass, padding included: as asked for, or as the device's memory holds.

    Weights must be on the device already; gradients and AdamW's moments are still to come.
    """
    if placement.train_tokens:
        return placement.train_tokens
    device = next(module.parameters()).device
    if device.type == "cpu":
        return TOKENS_AT_ONCE
    free, _ = torch.cuda.mem_get_info(device)
    trained = sum(
        p.numel() * (p.element_size() + 8) for p in module.parameters() if p.requires_grad
    )
    shared = world if placement.stepper == "deepspeed" else 1
    element = next(module.parameters()).element_size()
    each = token_bytes(module.config, element, placement.gradient_checkpointing)
    room = SHARE * (free - trained / shared) / each
    return max(STEP, int(room) // STEP * STEP)


def token_bytes(config: Any, element: int, checkpointing: bool) -> int:
    """Estimated memory that activations and logits of a token need until the backward pass.

    Of each layer 30 numbers a hidden unit: 17 in Korthikanti et al. 2022, section 4.1, for an
    MLP four times as wide, more for gated ones and for norms in float32. With checkpointing one,
    and a single layer in full. Logits of half of the positions, in float32 thrice beside the
    model's dtype. From 32 to 128 rows, an H100 took 2.6 MiB a token of a model with 1.24 billion
    weights in bfloat16; this says 2.7.

    Args:
        config: of a transformers model.
        element: bytes of a number.
    """
    text = config.get_text_config()
    layer = 30 * text.hidden_size * element
    layers = text.num_hidden_layers
    states = layers * text.hidden_size * element + layer if checkpointing else layers * layer
    return int(states + text.vocab_size * (12 + element) // 2)
