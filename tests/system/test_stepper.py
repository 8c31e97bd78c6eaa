"""DeepSpeed's stepper, one process: the same weights as torch's, and checkpoints that fit both."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distforget.engine.deepspeed import DeepSpeedStepper
from distforget.placement import Placement
from distforget.steppers import Stepper, TorchStepper
from distforget.study import FinetuneConfig

CONFIG = FinetuneConfig(weight_decay=0.01, gradient_clip=0.5)


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    for name in ("RANK", "LOCAL_RANK"):
        os.environ[name] = "0"
    os.environ["WORLD_SIZE"] = "1"
    file = tmp_path_factory.mktemp("group") / "rendezvous"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def deepspeed(stage: int, bf16: bool = False) -> DeepSpeedStepper:
    placement = Placement(zero_stage=stage)
    return DeepSpeedStepper(network(), CONFIG.weight_decay, CONFIG.gradient_clip, placement, bf16)


def train(stepper: Stepper, model: nn.Module, first: int, last: int) -> None:
    for number in range(first, last):
        draw = torch.Generator().manual_seed(number)
        inputs, outputs = torch.randn(4, 5, generator=draw), torch.randn(4, 3, generator=draw)
        for rows in (slice(0, 1), slice(1, 4)):
            stepper.backward((model(inputs[rows]) - outputs[rows]).square().sum() / 12)
        assert stepper.step(0.05, torch.zeros(()))[1]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-7, msg=name)


def plain_states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """After 3 steps, and after 6."""
    model = network()
    stepper = TorchStepper(model, CONFIG.weight_decay, CONFIG.gradient_clip)
    train(stepper, model, 0, 3)
    early = copy.deepcopy(stepper.state())
    train(stepper, model, 3, 6)
    return early, stepper.state()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_it_takes_the_same_steps_as_torch(stage: int) -> None:
    stepper = deepspeed(stage)
    train(stepper, stepper.engine, 0, 6)
    equal(stepper.state(), plain_states()[1])


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_without_a_finite_gradient_changes_nothing(stage: int, bf16: bool) -> None:
    stepper = deepspeed(stage, bf16)
    dtype = torch.bfloat16 if bf16 else torch.float32
    before = stepper.state()
    for factor in (1.0, float("nan")):
        stepper.backward(stepper.engine(torch.ones(1, 5, dtype=dtype)).sum() * factor)
    assert stepper.step(0.05, torch.ones(())).tolist() == [1, False]
    equal(stepper.state(), before)
    for _ in range(2):
        stepper.backward(stepper.engine(torch.ones(1, 5, dtype=dtype)).sum())
    assert stepper.step(0.05, torch.ones(())).tolist() == [1, True]
    assert not torch.equal(stepper.state()["weight/2.weight"], before["weight/2.weight"])


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_it_goes_on_from_a_checkpoint_of_torch_and_back(stage: int, tmp_path: Path) -> None:
    early, late = plain_states()
    stepper = deepspeed(stage)
    stepper.load_state(early)
    equal(stepper.state(), early)
    train(stepper, stepper.engine, 3, 6)
    equal(stepper.state(), late)
