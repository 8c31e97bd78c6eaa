"""Measures whether small classifiers train faster stacked in one process than one by one.

    python benchmarks/stacking.py [--models 24] [--samples 100] [--steps 100]

One by one is what a study does, a model a worker. Stacked: all weights in one tensor a layer
(`torch.func.stack_module_state`), one vectorised forward and backward pass for all, the same Adam.
Both see the same images; losses must agree to 1e-4.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from measuring import machine, parser, report
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from distforget.image_config import FitConfig
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import MLP, MLPConfig, build


def stacked(models: list[MLP], data: list[Labelled], config: FitConfig) -> Tensor:
    """Train all at once; the last step's losses (M,)."""
    weights, _ = stack_module_state(models)
    images = torch.stack([part.images_NCHW for part in data])
    labels = torch.stack([part.labels_N for part in data])

    def loss(weight: dict[str, Tensor], images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        return cross_entropy(functional_call(models[0], weight, images_NCHW), labels_N)

    optimizer = torch.optim.Adam(
        weights.values(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    slopes = vmap(grad_and_value(loss))
    for _ in range(config.steps):
        found, _ = slopes(weights, images, labels)
        for name, weight in weights.items():
            weight.grad = found[name]
        optimizer.step()
        schedule.step()
    return slopes(weights, images, labels)[1]


def main() -> None:
    """Print the time of both ways."""
    options = parser(__doc__)
    options.add_argument("--models", type=int, default=24)
    options.add_argument("--samples", type=int, default=100)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--threads", type=int, default=1, help="of each way")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    device, count = arguments.device, 4 if arguments.quick else arguments.models
    generator = torch.Generator().manual_seed(0)
    config = FitConfig(steps=arguments.steps, record_every=arguments.steps)
    data = [
        Labelled(
            torch.rand(arguments.samples, 1, 28, 28, generator=generator).to(device),
            (torch.arange(arguments.samples) % 10).to(device),
        )
        for _ in range(count)
    ]

    def fresh() -> list[Any]:
        seeds = (torch.Generator().manual_seed(seed) for seed in range(count))
        return [build(MLPConfig(), seed).to(device) for seed in seeds]

    began = time.perf_counter()
    losses = [fit(m, part, config)[-1].loss for m, part in zip(fresh(), data, strict=True)]
    one_by_one = time.perf_counter() - began
    began = time.perf_counter()
    together = stacked(fresh(), data, config).tolist()
    in_one = time.perf_counter() - began
    apart = max(abs(a - b) for a, b in zip(losses, together, strict=True))
    if apart > 1e-4:
        raise SystemExit(f"the losses differ by {apart:.1e}")
    row = {
        "models": count,
        "steps": arguments.steps,
        "one by one, s": one_by_one,
        "stacked, s": in_one,
        "ratio": one_by_one / in_one,
        "largest difference of a loss": apart,
    }
    report("Training of small models", [row], machine(device), arguments.output)


if __name__ == "__main__":
    main()
