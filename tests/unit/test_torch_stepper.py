"""Steps on weights of 16 bits."""

from __future__ import annotations

import torch
from torch import nn

from distforget.steppers import TorchStepper


def test_weights_of_16_bits_take_the_steps_of_float32_ones() -> None:
    """A step of 1e-5 is far below the distance of two bfloat16 numbers near 1 (2^-8)."""
    steps, rate = 400, 1e-5
    torch.manual_seed(0)
    gradients = [torch.randn(64).sign() * 0.5 + 1 for _ in range(steps)]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        module = nn.Module()
        module.weight = nn.Parameter(torch.linspace(0.5, 2, 64).bfloat16().to(dtype))
        stepper = TorchStepper(module, weight_decay=0.0, clip=1e9)
        for gradient in gradients:
            stepper.backward((module.weight * gradient.to(dtype)).sum())
            assert stepper.step(rate, torch.zeros(()))[1]
        found[dtype] = stepper.weights()["weight"]
        assert module.weight.dtype is dtype
        torch.testing.assert_close(module.weight.data, found[dtype].to(dtype))
        again = TorchStepper(module, weight_decay=0.0, clip=1e9)
        again.load_state(stepper.state())
        assert torch.equal(again.weights()["weight"], found[dtype])
    assert found[torch.bfloat16].dtype is torch.float32
    torch.testing.assert_close(found[torch.bfloat16], found[torch.float32], rtol=0, atol=1e-6)
    assert (
        found[torch.float32] - torch.linspace(0.5, 2, 64).bfloat16()
    ).abs().min() > 0.8 * steps * rate
