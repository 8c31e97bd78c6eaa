"""Measures the attack against the way it was published, in the same time and in ten times as much.

    python benchmarks/published_attack.py --dataset mnist.npz [--samples 100] [--seed 1]

The published way (Haim et al. 2022; several classes and weight decay: Buzaglo et al. 2023): the
same equations in all weights at once, solved by SGD with momentum through autograd of autograd for
images anywhere in pixel space and multipliers that a penalty keeps above a bound, pixels drawn
into their range. Its step sizes, first images and bound were searched by its authors for each
network; here `TRIES` are run, each for the whole time, and the one that recovers most is shown,
which favours it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from measuring import machine, parser, report
from reconstruction import WEIGHT_DECAY, Draw, draw
from torch import Tensor

from distforget.analysis.separation import auc
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.imaging.autograd_reconstruction import gradient_sums
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import MLP, MLPConfig, build
from distforget.imaging.reconstruction import candidate_labels, reconstruct
from distforget.imaging.ssim import best_matches

TRIES = [(rate, scale) for rate in (5e-4, 1e-3, 2e-3) for scale in (0.001, 0.01)]
"""Learning rate of the images, and scale of the first ones; at larger ones nearly all diverge."""
MULTIPLIERS_RATE = 1e-3
LEAST_MULTIPLIER, SHARPNESS, MOMENTUM = 0.05, 150.0, 0.9


def published(
    model: MLP, count: int, rate: float, scale: float, seconds: tuple[float, ...], mean_CHW: Tensor
) -> list[tuple[float, int, Tensor]]:
    """What has been found after some times: seconds, steps, images."""
    generator = torch.Generator().manual_seed(0)
    labels_N = candidate_labels(count, model.config.classes)
    images = scale * torch.randn(count, *model.config.image_shape, generator=generator)
    multipliers = torch.rand(count, generator=generator)
    unknown = [images.requires_grad_(), multipliers.requires_grad_()]
    optimizer = torch.optim.SGD(
        [{"params": [images], "lr": rate}, {"params": [multipliers], "lr": MULTIPLIERS_RATE}],
        momentum=MOMENTUM,
    )
    weights = [parameter.detach() for parameter in model.parameters()]
    found, steps, began = [], 0, time.perf_counter()
    for until in seconds:
        while time.perf_counter() - began < until:
            sums = gradient_sums(model, images, labels_N, multipliers, SHARPNESS)
            apart = sum(((w - s).square().sum() for w, s in zip(weights, sums, strict=True)))
            pixels = images + mean_CHW
            beyond = torch.relu(-pixels) + torch.relu(pixels - 1)
            below = torch.relu(LEAST_MULTIPLIER - multipliers)
            loss = apart + beyond.square().sum() + below.square().sum()
            for tensor, grad in zip(unknown, torch.autograd.grad(loss, unknown), strict=True):
                tensor.grad = grad
            optimizer.step()
            steps += 1
        found.append((until, steps, images.detach() + mean_CHW))
    return found


def judged(way: str, seconds: float, steps: int, images: Tensor, drawn: Draw) -> dict[str, Any]:
    """One line of the table."""
    members, others = (
        best_matches(images.nan_to_num(), part.images_NCHW, drawn.mean_CHW).ssim_M
        for part in (drawn.train, drawn.controls)
    )
    return {
        "way": way,
        "attack s": seconds,
        "steps": steps,
        "> 0.4": int((members > 0.4).sum()),
        "controls > 0.4": float((others > 0.4).double().mean()),
        "mean SSIM": float(members.mean()),
        "AUC": auc(members.numpy(), others.numpy()),
    }


def main() -> None:
    """Print a line for each way and time."""
    options = parser(__doc__)
    options.add_argument("--dataset", type=Path, required=True, help=".npz of images and labels")
    options.add_argument("--samples", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--controls", type=int, default=500)
    options.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    arguments = options.parse_args()
    drawn = draw(arguments.dataset, arguments.samples, arguments.controls, arguments.seed)
    mean_CHW, count = drawn.mean_CHW, 2 * arguments.samples
    config = MLPConfig(image_shape=tuple(mean_CHW.shape), hidden=tuple(arguments.hidden))
    model = build(config, torch.Generator().manual_seed(arguments.seed))
    assert isinstance(model, MLP)
    train = Labelled(drawn.train.images_NCHW - mean_CHW, drawn.train.labels_N)
    fit(model, train, FitConfig(weight_decay=WEIGHT_DECAY))
    began, settings = time.perf_counter(), ReconstructionConfig()
    generator = torch.Generator().manual_seed(arguments.seed + 1000)
    images = reconstruct(model, count, settings, generator, mean_CHW).images_NCHW
    seconds = time.perf_counter() - began
    rows = [judged("distforget", seconds, settings.steps, images, drawn)]
    times = (seconds,) if arguments.quick else (seconds, 10 * seconds)
    tried: dict[float, list[dict[str, Any]]] = {each: [] for each in times}
    for rate, scale in TRIES:
        for until, steps, images in published(model, count, rate, scale, times, mean_CHW):
            way = f"published, rate {rate:g}, scale {scale:g}"
            tried[until].append(judged(way, until, steps, images, drawn))
            print(tried[until][-1], flush=True)
    rows += [max(tries, key=lambda row: row["> 0.4"]) for tries in tried.values()]
    report(f"Attacks: {arguments.dataset.stem}", rows, machine(arguments.device), arguments.output)


if __name__ == "__main__":
    main()
