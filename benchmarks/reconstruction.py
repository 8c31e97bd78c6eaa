"""Measures how many training images the attack reads out of an MLP's weights, and in what time.

    python benchmarks/reconstruction.py --dataset mnist.npz [--samples 100 200 500] [--seeds 3]

The file holds `images` (N, H, W) or (N, C, H, W), uint8, and `labels` (N,). For each number of
samples and seed: trains a classifier on that many images, classes balanced, attacks its weights and
scores the candidates against the training images and against as many controls that were never
trained on, in the same way. What the attacker knows beside the weights: the mean of the other
images, and (roughly) how many samples there were. "train s" and "attack s" are wall time, "CPU s"
is the processor time of both; scoring is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, parser, report
from torch import Tensor

from distforget.analysis.separation import auc, tpr_at_fpr
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import MLP, MLPConfig, build
from distforget.imaging.nulls import against_nulls
from distforget.imaging.reconstruction import reconstruct
from distforget.imaging.ssim import best_matches

WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Draw:
    """Training images, controls that were never trained on, and the mean of all other images."""

    train: Labelled
    controls: Labelled
    mean_CHW: Tensor


def draw(path: Path, samples: int, controls: int, seed: int) -> Draw:
    """Images of a file, pixels 0 to 1; as many training images of each class."""
    content = np.load(path)
    images = torch.from_numpy(content["images"]).float() / 255
    images = images[:, None] if images.ndim == 3 else images
    labels = torch.from_numpy(content["labels"]).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    classes = int(labels.max()) + 1
    chosen = torch.cat([order[labels[order] == c][: samples // classes] for c in range(classes)])
    rest = order[~torch.isin(order, chosen)]
    held, pool = rest[:controls], rest[controls:]
    if len(pool) < 100:
        raise SystemExit(
            f"{path} holds {len(images)} images; {samples} to train on, {controls} controls and "
            "100 for the mean are asked for: lower --samples or --controls"
        )
    return Draw(
        Labelled(images[chosen], labels[chosen]),
        Labelled(images[held], labels[held]),
        images[pool].mean(0),
    )


def measure(drawn: Draw, arguments: Any, samples: int, seed: int) -> dict[str, Any]:
    """One line of the table."""
    device, mean_CHW = arguments.device, drawn.mean_CHW
    config = MLPConfig(
        image_shape=tuple(mean_CHW.shape), hidden=arguments.hidden, bias=arguments.bias
    )
    model = build(config, torch.Generator().manual_seed(seed)).to(device)
    assert isinstance(model, MLP)
    train, controls = (
        Labelled((part.images_NCHW - mean_CHW).to(device), part.labels_N.to(device))
        for part in (drawn.train, drawn.controls)
    )
    began, processor = time.perf_counter(), time.process_time()
    fitting = FitConfig(steps=arguments.train_steps, weight_decay=WEIGHT_DECAY)
    point = fit(model, train, fitting, controls)[-1]
    trained = time.perf_counter()
    settings = ReconstructionConfig.model_validate(
        {"sparse_weight": arguments.sparse_weight, "steps": arguments.steps}
    )
    generator = torch.Generator(device).manual_seed(seed + 1000)
    found = reconstruct(model, 2 * samples, settings, generator, mean_CHW)
    attacked, processor = time.perf_counter(), time.process_time() - processor
    candidates = found.images_NCHW.cpu()
    members, others = (
        best_matches(candidates, part.images_NCHW, mean_CHW).ssim_M
        for part in (drawn.train, drawn.controls)
    )
    return {
        "N": samples,
        "seed": seed,
        "p/(dn)": sum(p.numel() for p in model.parameters()) / train.images_NCHW.numel(),
        "train s": trained - began,
        "KKT": point.kkt_residual,
        "held out": point.held_out_accuracy,
        "attack s": attacked - trained,
        "CPU s": processor,
        "residual": found.residual,
        "> 0.4": int((members > 0.4).sum()),
        "controls > 0.4": float((others > 0.4).double().mean()),
        "mean SSIM": float(members.mean()),
        "AUC": auc(members.numpy(), others.numpy()),
        "TPR 1%": tpr_at_fpr(members.numpy(), others.numpy()),
        **verdicts(members, drawn.train.labels_N, others, drawn.controls.labels_N),
    }


def verdicts(
    members: Tensor, labels: Tensor, controls: Tensor, control_labels: Tensor
) -> dict[str, float]:
    """Shares of verdicts "the model holds it" at p < 0.05, of members and of never-trained ones.

    One half of the controls are the nulls of the other, which must get no more than 5 %.
    """
    half = len(controls) // 2
    nulls = (controls[half:], control_labels[half:])
    _, of_members = against_nulls(members, labels, *nulls)
    _, of_controls = against_nulls(controls[:half], control_labels[:half], *nulls)
    return {
        "p<.05": float((of_members < 0.05).double().mean()),
        "controls p<.05": float((of_controls < 0.05).double().mean()),
    }


def main() -> None:
    """Print one line for each number of samples and seed."""
    options = parser(__doc__)
    options.add_argument("--dataset", type=Path, required=True, help=".npz of images and labels")
    options.add_argument("--samples", type=int, nargs="+", default=[100, 200, 500])
    options.add_argument("--seeds", type=int, default=3, help="how many, from 1")
    options.add_argument("--controls", type=int, default=500)
    options.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    options.add_argument("--bias", choices=("first", "all", "none"), default="first")
    options.add_argument("--train-steps", type=int, default=FitConfig().steps)
    options.add_argument("--steps", type=int, default=ReconstructionConfig().steps)
    options.add_argument(
        "--sparse-weight", type=float, default=ReconstructionConfig().sparse_weight,
        help="0 for photographs",
    )  # fmt: skip
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = options.parse_args()
    arguments.hidden = tuple(arguments.hidden)
    torch.set_num_threads(arguments.threads)
    rows = []
    for samples in arguments.samples[:1] if arguments.quick else arguments.samples:
        for seed in range(1, (1 if arguments.quick else arguments.seeds) + 1):
            drawn = draw(arguments.dataset, samples, arguments.controls, seed)
            rows.append(measure(drawn, arguments, samples, seed))
            print("  ".join(f"{k} {v:.3g}" for k, v in rows[-1].items()), flush=True)
    title = f"Reconstruction: {arguments.dataset.stem}, hidden {arguments.hidden}"
    report(title, rows, machine(arguments.device), arguments.output)


if __name__ == "__main__":
    main()
