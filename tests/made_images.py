"""Tables of a made-up study of images, each score telling where it belongs; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from distforget import schemas
from distforget.report.study_tables import CELL, Images, StudyTables

SIMILAR, OTHERS, UNSEEN, SIDE = 5, 4, 3, 8
DOSES = (0, 5)
METHODS = (
    ("retrain", "plain"), ("retrain", "enhanced-5"), ("retrain", "enhanced-3"),
    ("relabel_GDN", "plain"),
)  # fmt: skip
NEAREST = {("retrain", "enhanced-3"): 3, ("retrain", "enhanced-5"): 5}
FAILED, NOT_RUN = ("retrain", "plain", True, 2), ("relabel_GDN", "plain", True, 3)
DIVERGED = ("retrain", "plain", False, 1)
"""Method, variant, whether with similar samples, target."""


def sample_id(role: str, target: int, rank: int = 0) -> int:
    """The number of a sample; of others and unseen ones `rank` counts."""
    return {"target": 0, "similar": 1000 * target, "other": 500000, "unseen": 600000}[role] + (
        target if role == "target" else rank
    )


def ssim(sample: int, method: str = "", variant: str = "", dose: int = 0, seed: int = 0) -> float:
    """A score that tells where it belongs."""
    state = sum(map(ord, method + variant)) % 13 / 40
    return round(0.2 + state + 0.011 * (sample % 17) + 0.1 * (dose > 0) + 0.1 * seed, 6)


def null(sample: int, method: str = "", variant: str = "", dose: int = 0, seed: int = 0) -> float:
    """What never-trained samples of the class reach."""
    return round(ssim(sample, method, variant, dose, seed) / 2, 6)


def pixels(sample: int, channels: int = 1) -> bytes:
    """Noise of its own."""
    size = SIDE * SIDE * channels
    return np.random.default_rng(sample).integers(0, 256, size, np.uint8).tobytes()


def made_images(
    targets: int = 3,
    seeds: int = 1,
    dataset: str = "MNIST",
    similar: int = SIMILAR,
    unseen: int = UNSEEN,
    doses: Sequence[int] = DOSES,
    channels: int = 1,
) -> StudyTables:
    """Of one model m; one cell failed, one was not run, one diverged."""
    every = range(1, targets + 1)
    family = [("target", t, sample_id("target", t), 0) for t in every]
    family += [
        ("similar", t, sample_id("similar", t, r), r) for t in every for r in range(1, similar + 1)
    ]
    controls: list[tuple[str, int | None, int, int]] = [
        (role, None, sample_id(role, 0, i), 0)
        for role, count in (("other", OTHERS), ("unseen", unseen))
        for i in range(count)
    ]
    scores: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    planned = []

    def ask(of: Iterable[int], seed: int | None, dose: int, **state: Any) -> None:
        about = {"attack": "none", "track": "image", "dataset": "d", "model": "m", "seed": seed}
        about |= {"dose": None if seed is None else dose, **state}
        where = (state.get("method", ""), state.get("variant", ""), dose, seed or 0)
        for role, target, sample, _ in [*(f for f in family if f[1] in of), *controls]:
            asked = {**about, "role": role, "target_index": target, "sample_id": sample}
            found = ssim(sample, *where)
            scores.append({**asked, "metric": "ssim", "value": found})
            scores.append({**asked, "metric": "ssim_null", "value": null(sample, *where)})
            shape: dict[str, Any] = {"height": SIDE, "width": SIDE, "channels": channels}
            shape["pixels"] = pixels(sample + 1, channels)
            shape |= {"ssim_null": null(sample, *where), "p_value": 0.5}
            pictures.append({**asked, "candidate": 0, "ssim": found, **shape})

    ask(every, None, 0, phase="pre_finetune")
    for dose in doses:
        for seed in range(seeds):
            ask(every, seed, dose, phase="pre_unlearn")
            for method, variant in METHODS:
                for target in every:
                    cell = dict(zip(CELL, ("m", dose, method, variant, seed, target), strict=True))
                    planned.append(cell)
                    name = (method, variant, dose > 0, target)
                    if name == NOT_RUN:
                        continue
                    cells.append(
                        {
                            **cell, "cell": "c", "key": "k", "track": "image", "dataset": "d",
                            "state": "failed" if name == FAILED else "done", "attempts": 0,
                            "diverged": name == DIVERGED,
                        }
                    )  # fmt: skip
                    if name != FAILED:
                        of = {"method": method, "variant": variant, "unlearned": target}
                        ask([target], seed, dose, phase="post_unlearn", **of)
    rows = [
        {
            "dataset": "d", "sample_id": sample, "role": role, "target_index": target,
            "similar_rank": rank or None, "answer": str((target or 1) % 10), "height": SIDE,
            "width": SIDE, "channels": channels, "pixels": pixels(sample, channels),
        }
        for role, target, sample, rank in [*family, *controls]
    ]  # fmt: skip
    return StudyTables(
        "s", "ssim", 0.1, {"m": "mlp:8"}, pd.DataFrame(planned),
        schemas.from_rows("scores", scores), schemas.from_rows("cells", cells), "2026-11-25",
        "Made up",
        Images(
            dataset, schemas.from_rows("samples", rows),
            schemas.from_rows("reconstructions", pictures), NEAREST,
        ),
    )  # fmt: skip
