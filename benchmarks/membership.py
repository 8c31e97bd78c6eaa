"""Measures how well two tests of an auditor tell a training sample, and a trace of it, from none.

    python benchmarks/membership.py --dataset mnist.npz [--samples 50 100 500] [--seeds 3]

First table: members against never-trained images of the same pool (AUC). KKT membership solves for
the samples that the auditor knows: all other training samples, half of them, none (the query
alone), or what the attack reads out of the weights in place of all.

Second table: a tenth of the samples are targets, each with 5 masked copies among the training
samples. "full" was trained on all, "retrained" without the targets, "dose 0" with other images in
place of targets and copies. "gone" is the AUC of full against retrained: does the test see that the
sample is gone? "influence" is that of retrained against dose 0: does it see what similar samples
left behind? The auditor knows all other samples, the copies with them or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, parser, report
from reconstruction import WEIGHT_DECAY, Draw, draw
from torch import Tensor

from distforget.analysis.separation import auc
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.similarity.masks import block_mask
from distforget.tracks.image.fitting import Labelled, fit
from distforget.tracks.image.membership import kkt_membership, span_scores
from distforget.tracks.image.models import MLP, MLPConfig, build
from distforget.tracks.image.reconstruction import candidate_labels, reconstruct

ASKED = 75
SIMILAR, BLOCK, FRACTION = 5, 2, 0.3
"""As the paper masks MNIST."""


def trained(train: Labelled, mean_CHW: Tensor, arguments: Any, seed: int) -> MLP:
    """A classifier of these images."""
    config = MLPConfig(image_shape=tuple(mean_CHW.shape), hidden=arguments.hidden)
    model = build(config, torch.Generator().manual_seed(seed))
    assert isinstance(model, MLP)
    fit(model, centred(train, mean_CHW), FitConfig(weight_decay=WEIGHT_DECAY))
    return model


def centred(part: Labelled, mean_CHW: Tensor) -> Labelled:
    """Images as the model takes them."""
    return Labelled(part.images_NCHW - mean_CHW, part.labels_N)


def rows_of(part: Labelled, rows: Any) -> Labelled:
    """Some of the samples."""
    return Labelled(part.images_NCHW[rows], part.labels_N[rows])


def joined(*parts: Labelled) -> Labelled:
    """All samples of several sets."""
    return Labelled(
        torch.cat([part.images_NCHW for part in parts]),
        torch.cat([part.labels_N for part in parts]),
    )


def members(drawn: Draw, arguments: Any, seed: int) -> dict[str, Any]:
    """One line of the first table."""
    model = trained(drawn.train, drawn.mean_CHW, arguments, seed)
    train, controls = (centred(part, drawn.mean_CHW) for part in (drawn.train, drawn.controls))
    count = len(train.labels_N)
    order = np.random.default_rng(seed).permutation(count)
    asked = order[:ASKED]
    inside, outside = rows_of(train, asked), rows_of(controls, slice(ASKED))
    generator = torch.Generator().manual_seed(seed + 1000)
    found = reconstruct(model, 2 * count, ReconstructionConfig(), generator, drawn.mean_CHW)
    blind = Labelled(found.images_NCHW - drawn.mean_CHW, candidate_labels(2 * count, 10))

    def separation(known: Labelled, itself: list[int | None]) -> float:
        nobody = [None] * len(outside.labels_N)
        scores = (
            kkt_membership(model, known, queries, WEIGHT_DECAY, count, own).numpy()
            for queries, own in ((inside, itself), (outside, nobody))
        )
        return auc(*scores)

    half = order[: count // 2] if count <= ASKED else np.r_[asked[::2], order[ASKED:][::2]]
    place = {int(row): number for number, row in enumerate(half)}
    alone = [alone_score(model, part, count) for part in (inside, outside)]
    spans = [span_scores(model, part.images_NCHW, count) for part in (inside, outside)]
    return {
        "N": count,
        "seed": seed,
        "all known": separation(train, [int(row) for row in asked]),
        "half known": separation(rows_of(train, half), [place.get(int(row)) for row in asked]),
        "reconstructions": separation(blind, [None] * len(asked)),
        "none known": auc(*(part.numpy() for part in alone)),
        "span score": auc(*(span.numpy() for span in spans)),
    }


def alone_score(model: MLP, queries: Labelled, count: int) -> Tensor:
    """The multipliers with no other sample known."""
    single = [rows_of(queries, [row]) for row in range(len(queries.labels_N))]
    return torch.cat([kkt_membership(model, q, q, WEIGHT_DECAY, count, [0]) for q in single])


def with_copies(drawn: Draw, arguments: Any, seed: int) -> dict[str, Any]:
    """One line of the second table."""
    count = len(drawn.train.labels_N)
    order = np.random.default_rng(seed).permutation(count)
    targets, rest = count // 10, count - count // 10 * (1 + SIMILAR)
    target = rows_of(drawn.train, order[:targets])
    others = rows_of(drawn.train, order[targets : targets + rest])
    instead = rows_of(drawn.train, order[targets + rest :])
    copies = masked(target, seed)
    without = joined(others, copies)
    states = {
        "full": joined(without, target),
        "retrained": without,
        "dose 0": joined(others, instead),
    }
    models = {name: trained(part, drawn.mean_CHW, arguments, seed) for name, part in states.items()}
    row: dict[str, Any] = {"N": count, "seed": seed, "targets": targets}
    queries = centred(target, drawn.mean_CHW)
    for known_copies in (True, False):
        scores = {}
        for name, model in models.items():
            known = {"full": without, "retrained": without, "dose 0": states["dose 0"]}[name]
            known = known if known_copies else others
            scores[name] = kkt_membership(
                model,
                centred(known, drawn.mean_CHW),
                queries,
                WEIGHT_DECAY,
                len(states[name].labels_N),
            ).numpy()
        row |= verdicts("copies known" if known_copies else "unknown", scores)
    spans = {
        name: span_scores(model, queries.images_NCHW, len(states[name].labels_N)).numpy()
        for name, model in models.items()
    }
    return row | verdicts("span", spans)


def verdicts(name: str, scores: dict[str, Any]) -> dict[str, float]:
    """Whether a score tells that the sample is gone, and that its influence is not."""
    return {
        f"{name}: gone": auc(scores["full"], scores["retrained"]),
        f"{name}: influence": auc(scores["retrained"], scores["dose 0"]),
    }


def masked(part: Labelled, seed: int) -> Labelled:
    """Copies of each sample with blocks masked, of its class."""
    height, width = part.images_NCHW.shape[2:]
    generator = np.random.default_rng(seed)
    masks_MHW = np.stack(
        [
            block_mask(height, width, BLOCK, FRACTION, generator)
            for _ in range(SIMILAR * len(part.labels_N))
        ]
    )
    images_MCHW = part.images_NCHW.repeat_interleave(SIMILAR, 0)
    return Labelled(
        images_MCHW * torch.from_numpy(masks_MHW)[:, None].float(),
        part.labels_N.repeat_interleave(SIMILAR),
    )


def main() -> None:
    """Print both tables."""
    options = parser(__doc__)
    options.add_argument("--dataset", type=Path, required=True, help=".npz of images and labels")
    options.add_argument("--samples", type=int, nargs="+", default=[50, 100, 500])
    options.add_argument("--seeds", type=int, default=3, help="how many, from 1")
    options.add_argument("--controls", type=int, default=500)
    options.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    arguments = options.parse_args()
    arguments.hidden = tuple(arguments.hidden)
    tables: dict[str, list[dict[str, Any]]] = {"Members": [], "With masked copies": []}
    for samples in arguments.samples[:1] if arguments.quick else arguments.samples:
        for seed in range(1, (1 if arguments.quick else arguments.seeds) + 1):
            drawn = draw(arguments.dataset, samples, arguments.controls, seed)
            for rows, measure in zip(tables.values(), (members, with_copies), strict=True):
                rows.append(measure(drawn, arguments, seed))
                print("  ".join(f"{k} {v:.3g}" for k, v in rows[-1].items()), flush=True)
    for title, rows in tables.items():
        output = arguments.output and arguments.output.with_stem(
            f"{arguments.output.stem}_{title.split()[0].lower()}"
        )
        report(f"{title}: {arguments.dataset.stem}", rows, machine(arguments.device), output)


if __name__ == "__main__":
    main()
