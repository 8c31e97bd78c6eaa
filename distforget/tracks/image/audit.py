"""Audits a classifier that somebody else trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distforget.image_config import ReconstructionConfig
from distforget.imaging import kinks
from distforget.imaging.attack import attack
from distforget.imaging.fitting import Labelled
from distforget.imaging.membership import kkt_membership, span_scores
from distforget.imaging.models import MLP, Classifier, build
from distforget.imaging.nulls import against_nulls
from distforget.imaging.reconstruction import Inputs, Reconstruction
from distforget.imaging.ssim import best_matches
from distforget.tracks.image.held import NEVER, Held

AnyClassifier = TypeVar("AnyClassifier", bound=Classifier)
Word = Literal["read", "in part", "nothing"]
BOUNDS: tuple[tuple[float, Word], ...] = ((0.3, "read"), (0.8, "in part"))
"""Up to which residual, by that of fresh weights (1 at most), what comes out of an MLP. Measured:
0.10 of networks whose training came to rest with weight decay (98 of 100 digits read), 0.60 of one
that had nearly (36 of 100), 0.93 to 0.96 of five others (0 to 10 of 100)."""


@dataclass(frozen=True)
class ReadOut:
    """Candidates of the best of several starts, beside what the attack makes of fresh weights."""

    found: Reconstruction
    agreement_N: Tensor
    """SSIM of each candidate with the most similar one of another start, the mean over those."""
    of_gradient: bool
    """True if the candidates explain a gradient instead of the weights."""
    null_residual: float
    null_agreement_N: Tensor
    """The same agreement with candidates from fresh weights."""

    @property
    def word(self) -> Word:
        """Whether the candidates explain the weights, as they cannot explain fresh ones."""
        share = self.found.residual / min(1.0, self.null_residual)
        return next((word for bound, word in BOUNDS if share < bound), "nothing")


def read_out(
    model: Classifier,
    samples: int,
    config: ReconstructionConfig,
    inputs: Inputs,
    seed: int = 0,
    starts: int = 2,
    left: MLP | None = None,
    tell: Callable[[str], None] = lambda said: None,
) -> ReadOut:
    """Attack a classifier from several starts, and fresh weights of its sizes and norms once.

    Args:
        samples: how many it was trained on, as far as the auditor knows.
        starts: at least 2.
        left: see `reconstruction.reconstruct`.
        tell: is given what is being done.
    """
    tries = []
    for start in range(starts):
        tell(f"attack, start {start + 1} of {starts}")
        tries.append(attack(model, samples, config, seed + start, *inputs, left=left))
    tell("the same attack on fresh weights, for comparison")
    null = attack(
        fresh_like(model, seed),
        samples,
        config,
        seed,
        *inputs,
        left=None if left is None else fresh_like(left, seed + 1),
    )
    found, *others = sorted(tries, key=lambda one: one.residual)

    def met(by: Reconstruction) -> Tensor:
        images_NCHW = found.images_NCHW.detach().cpu().double()
        return best_matches(by.images_NCHW.detach().cpu().double(), images_NCHW, mean_CHW).ssim_M

    mean_CHW = inputs.mean_CHW.cpu()
    agreement_N = torch.stack([met(one) for one in others]).mean(0)
    return ReadOut(found, agreement_N, left is not None, null.residual, met(null))


def fresh_like(model: AnyClassifier, seed: int) -> AnyClassifier:
    """A classifier of the same sizes with fresh weights, each tensor of the norm of the model's."""
    weight = next(model.parameters())
    fresh = copy.deepcopy(model)
    drawn = build(model.config, torch.Generator().manual_seed(seed)).to(weight)
    fresh.load_state_dict(drawn.state_dict())
    with torch.no_grad():
        for new, old in zip(fresh.parameters(), model.parameters(), strict=True):
            new.mul_(old.norm() / new.norm().clamp(min=1e-30))
    return fresh


def check(
    model: Classifier,
    held: Held,
    inputs: Inputs,
    samples: int,
    weight_decay: float,
    found: Reconstruction | None = None,
    left: MLP | None = None,
) -> pd.DataFrame:
    """Evidence in the weights about each sample, one row per sample.

    Args:
        held: samples asked for; those of group NEVER are nulls, without which there are no
            p-values.
        samples: how many the model was trained on.
        weight_decay: of its training, which scales KKT multipliers.
        found: what an attack read out, to match with the samples.
        left: a gradient, if known, whose first layer spans its samples better than the weights do.

    Returns:
        Columns sample, group, label, predicted, loss (nats), of an MLP kinks, kink_closeness,
        span_score, kkt_multiplier, of `found` ssim; with nulls loss_p_value, kink_p_value,
        ssim_p_value. See `learner.ImageLearner.score` and `nulls.against_nulls`.
    """
    weight = next(model.parameters())
    mean_CHW, std_CHW = (part.to(weight) for part in inputs)
    images_NCHW = (held.images_NCHW.to(weight) - mean_CHW) / std_CHW
    labels_N = held.labels_N.to(weight.device)
    with torch.no_grad():
        logits_NK = model(images_NCHW).double()
    loss_N = cross_entropy(logits_NK, labels_N, reduction="none").cpu()
    values: dict[str, Any] = {
        "sample": held.names,
        "group": held.groups,
        "label": held.labels_N,
        "predicted": logits_NK.argmax(1).cpu(),
        "loss": loss_N,
    }
    scores = {"loss": -loss_N.clamp(min=torch.finfo(torch.float64).tiny).log()}
    asked, nulls = held.rows(never=False), held.rows(never=True)
    if isinstance(model, MLP):
        angles_NH = kinks.angles(model, images_NCHW).cpu()
        angles_NH = angles_NH[:, kinks.telling_units(angles_NH[nulls or asked])]
        values["kinks"] = kinks.count(angles_NH)
        scores["kink"] = values["kink_closeness"] = kinks.closeness(angles_NH)
        values["span_score"] = span_scores(left or model, images_NCHW, samples).cpu()
    place = {row: number for number, row in enumerate(asked)}
    values["kkt_multiplier"] = kkt_membership(
        model,
        Labelled(images_NCHW[asked], labels_N[asked]),
        Labelled(images_NCHW, labels_N),
        weight_decay,
        samples,
        [place.get(row) for row in range(len(labels_N))],
    )
    if found is not None:
        candidates = found.images_NCHW.detach().cpu().double()
        matches = best_matches(candidates, held.images_NCHW, inputs.mean_CHW.cpu())
        scores["ssim"] = values["ssim"] = matches.ssim_M
    if nulls:
        itself = [
            None if group != NEVER else nulls.index(row) for row, group in enumerate(held.groups)
        ]
        for name, score_N in scores.items():
            _, values[f"{name}_p_value"] = against_nulls(
                score_N, held.labels_N, score_N[nulls], held.labels_N[nulls], itself
            )
    return pd.DataFrame(
        {name: v.numpy() if isinstance(v, Tensor) else v for name, v in values.items()}
    )
