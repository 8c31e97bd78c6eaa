"""Measures how well an auditor's tests tell a training sample, and a trace of it, from none.

    python benchmarks/membership.py --dataset mnist.npz [--samples 50 100 200 500] [--seeds 3]

First table: members against never-trained images of the same pool, AUC and, in columns with %, the
share of members found at 1 % false positives. Kinks (their closeness), loss and span need the
weights and the sample alone. KKT membership solves for the samples that the auditor knows: all
other training samples, half of them, none (the query alone), or what the attack reads out of the
weights in place of all; its AUC is of 75 members and 75 others, all of which are on the list in
"all known".

Second table: a tenth of the samples are targets, each with 5 masked copies among the training
samples. "full" was trained on all, "retrained" without the targets, "dose 0" with other images in
place of targets and copies. "gone" is the AUC of full against retrained: does the test see that the
sample is gone? "influence" is that of retrained against dose 0: does it see what similar samples
left behind? The auditor knows all other samples, the copies with them or not.

Third table: kinks and loss on networks that others might bring: stored in other dtypes, trained by
other optimisers and schedules, 100 samples each; and a CNN, which has the loss and the multiplier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, parser, report
from reconstruction import WEIGHT_DECAY, Draw, draw
from torch import Tensor, nn

from distforget.analysis.separation import auc, tpr_at_fpr
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.imaging import kinks
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.membership import kkt_membership, span_scores
from distforget.imaging.models import MLP, Classifier, CNNConfig, MLPConfig, build
from distforget.imaging.reconstruction import candidate_labels, reconstruct
from distforget.similarity.mask import block_mask

ASKED = 75
SIMILAR, BLOCK, FRACTION = 5, 2, 0.3
"""As the paper masks MNIST."""


def trained(train: Labelled, mean_CHW: Tensor, arguments: Any, seed: int) -> MLP:
    """A classifier of these images."""
    width = 256 if len(train.labels_N) <= 200 else 512
    hidden = arguments.hidden or (width, width)
    config = MLPConfig(image_shape=tuple(mean_CHW.shape), hidden=hidden)
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

    def separation(
        known: Labelled, itself: list[int | None], others: list[int | None] | None = None
    ) -> float:
        nobody = [None] * len(outside.labels_N)
        scores = (
            kkt_membership(model, known, queries, WEIGHT_DECAY, count, own).numpy()
            for queries, own in ((inside, itself), (outside, others or nobody))
        )
        return auc(*scores)

    half = order[: count // 2] if count <= ASKED else np.r_[asked[::2], order[ASKED:][::2]]
    place = {int(row): number for number, row in enumerate(half)}
    alone = [alone_score(model, part, count) for part in (inside, outside)]
    spans = [span_scores(model, part.images_NCHW, count) for part in (train, controls)]
    listed = joined(train, outside)
    return {
        "N": count,
        "seed": seed,
        **told(model, train, controls),
        "span": auc(*(span.numpy() for span in spans)),
        "span %": 100 * tpr_at_fpr(*(span.numpy() for span in spans)),
        "all known": separation(
            listed,
            [int(row) for row in asked],
            [count + row for row in range(len(outside.labels_N))],
        ),
        "half known": separation(rows_of(train, half), [place.get(int(row)) for row in asked]),
        "reconstructions": separation(blind, [None] * len(asked)),
        "none known": auc(*(part.numpy() for part in alone)),
    }


def told(model: Classifier, members: Labelled, others: Labelled) -> dict[str, float]:
    """How well kinks and loss tell members from others."""
    scores = {"loss": [-loss_of(model, part) for part in (members, others)]}
    if isinstance(model, MLP):
        angles = [kinks.angles(model, part.images_NCHW) for part in (members, others)]
        telling_H = kinks.telling_units(angles[1])
        scores["kinks"] = [kinks.closeness(part[:, telling_H]) for part in angles]
        scores["kinks, counted"] = [kinks.count(part[:, telling_H]) for part in angles]
    found = {}
    for name in sorted(scores):
        pair = [score.numpy() for score in scores[name]]
        found |= {name: auc(*pair), f"{name} %": 100 * tpr_at_fpr(*pair)}
    return found


@torch.no_grad()
def loss_of(model: Classifier, part: Labelled) -> Tensor:
    """Cross-entropy of each sample in nats."""
    images_NCHW = part.images_NCHW.to(next(model.parameters()))
    return nn.functional.cross_entropy(model(images_NCHW).double(), part.labels_N, reduction="none")


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
    near = {}
    for name, model in models.items():
        telling_H = kinks.telling_units(
            kinks.angles(model, centred(drawn.controls, drawn.mean_CHW).images_NCHW)
        )
        angles_NH = kinks.angles(model, queries.images_NCHW)[:, telling_H]
        near[name] = kinks.closeness(angles_NH).numpy()
    return row | verdicts("span", spans) | verdicts("kinks", near)


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


def foreign(drawn: Draw, arguments: Any, seed: int) -> list[dict[str, Any]]:
    """Lines of the third table."""
    train, controls = (centred(part, drawn.mean_CHW) for part in (drawn.train, drawn.controls))
    ours = trained(drawn.train, drawn.mean_CHW, arguments, seed)
    rows = [("ours", ours)]
    for dtype in (torch.float16, torch.bfloat16):
        stored = MLP(ours.config).to(dtype)
        stored.load_state_dict(ours.state_dict())
        rows.append((f"ours, stored as {str(dtype).removeprefix('torch.')}", stored.float()))
    for name, settings in FOREIGN.items():
        rows.append((name, trained_elsewhere(train, ours.config, seed, **settings)))
    found = [{"network": name, "seed": seed, **told(m, train, controls)} for name, m in rows]
    cnn = build(
        CNNConfig(image_shape=tuple(drawn.mean_CHW.shape)), torch.Generator().manual_seed(seed)
    )
    fit(cnn, train, FitConfig(weight_decay=WEIGHT_DECAY))
    both, count = joined(train, rows_of(controls, slice(ASKED))), len(train.labels_N)
    share = kkt_membership(cnn, both, both, WEIGHT_DECAY, count, range(len(both.labels_N))).numpy()
    of_cnn = {"KKT": auc(share[:count], share[count:])}
    return [*found, {"network": "CNN", "seed": seed, **told(cnn, train, controls), **of_cnn}]


FOREIGN: dict[str, dict[str, Any]] = {
    "SGD, momentum 0.9, wd 1e-3, cosine": {"rate": 0.1, "decay": 1e-3, "kind": "SGD"},
    "Adam, He start, cosine": {"he": True},
    "AdamW, float64, cosine": {"kind": "AdamW", "decay": 0.01, "dtype": torch.float64},
    "AdamW, batches of 20, cosine": {"kind": "AdamW", "decay": 0.01, "batch": 20, "steps": 3000},
    "Adam, constant rate": {"cosine": False},
    "Adam, constant rate, dropout 0.3": {"cosine": False, "dropout": 0.3},
}


def trained_elsewhere(
    train: Labelled,
    config: MLPConfig,
    seed: int,
    *,
    kind: str = "Adam",
    rate: float = 1e-3,
    decay: float = 0.0,
    cosine: bool = True,
    dropout: float = 0.0,
    he: bool = False,
    batch: int = 0,
    steps: int = 1500,
    dtype: torch.dtype = torch.float32,
) -> MLP:
    """A network with a bias in each layer, trained as others do."""
    draw = torch.Generator().manual_seed(seed)
    model = build(config.model_copy(update={"bias": "all"}), draw).to(dtype)
    assert isinstance(model, MLP)
    *hidden, last = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    for layer in (*hidden, last) if he else ():
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=draw)
        nn.init.zeros_(layer.bias)
    more = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(model.parameters(), rate, weight_decay=decay, **more)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    images_ND = train.images_NCHW.flatten(1).to(dtype)
    count = len(images_ND)
    for _ in range(steps):
        rows = torch.randperm(count, generator=draw)[: batch or count]
        inputs_NI = images_ND[rows]
        for layer in hidden:
            inputs_NI = nn.functional.dropout(layer(inputs_NI).relu(), dropout)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(last(inputs_NI), train.labels_N[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        if cosine:
            schedule.step()
    return model


def main() -> None:
    """Print the three tables."""
    options = parser(__doc__)
    options.add_argument("--dataset", type=Path, required=True, help=".npz of images and labels")
    options.add_argument("--samples", type=int, nargs="+", default=[50, 100, 200, 500])
    options.add_argument("--seeds", type=int, default=3, help="how many, from 1")
    options.add_argument("--controls", type=int, default=500)
    options.add_argument(
        "--hidden", type=int, nargs="+", help="default: 2 x 256, for more than 200 samples 2 x 512"
    )
    arguments = options.parse_args()
    arguments.hidden = tuple(arguments.hidden or ())
    tables: dict[str, list[dict[str, Any]]] = {"Members": [], "With masked copies": []}
    for samples in arguments.samples[:1] if arguments.quick else arguments.samples:
        for seed in range(1, (1 if arguments.quick else arguments.seeds) + 1):
            drawn = draw(arguments.dataset, samples, arguments.controls, seed)
            for rows, measure in zip(tables.values(), (members, with_copies), strict=True):
                rows.append(measure(drawn, arguments, seed))
                print("  ".join(f"{k} {v:.3g}" for k, v in rows[-1].items()), flush=True)
    tables["Networks of others"] = []
    for seed in range(1, (1 if arguments.quick else arguments.seeds) + 1):
        drawn = draw(arguments.dataset, 100, arguments.controls, seed)
        tables["Networks of others"] += foreign(drawn, arguments, seed)
    for title, rows in tables.items():
        output = arguments.output and arguments.output.with_stem(
            f"{arguments.output.stem}_{title.split()[0].lower()}"
        )
        report(f"{title}: {arguments.dataset.stem}", rows, machine(arguments.device), output)


if __name__ == "__main__":
    main()
