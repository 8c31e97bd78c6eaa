"""An image classifier that can be taught, unlearned, attacked and scored (implements `Learner`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from distforget import losses, selection
from distforget.image_config import ImageConfig
from distforget.study import UsageError, generator_seed
from distforget.tracks.base import Fit, Noise, RetainBatches, Scored
from distforget.tracks.image import dataset, kinks
from distforget.tracks.image.attack import attack
from distforget.tracks.image.fitting import Labelled
from distforget.tracks.image.membership import kkt_membership, span_scores
from distforget.tracks.image.models import MLP, Classifier
from distforget.tracks.image.nulls import against_nulls
from distforget.tracks.image.ssim import Matches, best_matches, scaled_ssim_pairs, ssim_pairs
from distforget.tracks.terms import LogitTermsOfCells


def pixels_of(samples: pa.Table) -> Tensor:
    """(N, C, H, W) float32, 0 to 1."""
    return torch.from_numpy(dataset.pixels_of(samples))


def labels_of(samples: pa.Table) -> Tensor:
    """(N,) classes."""
    return torch.from_numpy(dataset.labels_of(samples))


@dataclass(frozen=True)
class ImageExamples:
    """Images as the model takes them, and their classes."""

    images_NCHW: Tensor
    """The mean image subtracted."""
    labels_N: Tensor

    @property
    def sizes(self) -> np.ndarray:
        """(N,) all alike."""
        return np.ones(len(self.labels_N), np.int64)

    @property
    def answer_sizes(self) -> np.ndarray:
        """(N,) one: the class is an answer of one token."""
        return self.sizes


class ImageLearner:
    """A classifier, the dataset it belongs to and the attack that verifies what it holds."""

    slots = None

    def __init__(
        self,
        module: Classifier,
        samples: pa.Table,
        config: ImageConfig,
        metrics: Collection[str],
        study_seed: int,
        repetition: int = 0,
    ) -> None:
        """A learner whose attacks draw by study seed and repetition, whatever the weights are.

        Args:
            samples: the whole dataset; the mean image is that of the other samples that every dose
                trains on, so that no target leaves a trace in it.
            metrics: the scores wanted, out of `IMAGE_METRICS`.

        Raises:
            UsageError: there are no other samples.
        """
        self.module = module
        self.config = config
        self.metrics = metrics
        self.study_seed = study_seed
        self.repetition = repetition
        self.pool = samples.filter(pc.not_equal(samples["role"], "unseen"))
        self.unseen = samples.filter(pc.equal(samples["role"], "unseen"))
        trained = selection.training_rows(samples, len(samples))
        self.others = trained.filter(pc.equal(trained["role"], "other"))
        self.samples_trained = len(trained)
        if not len(self.others):
            raise UsageError(
                "dataset.per_class: targets and similar samples fill all classes, no other sample "
                "is left; raise it"
            )
        self.mean_CHW = pixels_of(self.others).mean(0)
        self.lookalikes: dict[int, float] = {}
        """By sample_id, see `score`."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    def encode(self, samples: pa.Table) -> ImageExamples:
        """See `Learner.encode`."""
        images_NCHW = (pixels_of(samples) - self.mean_CHW).to(next(self.module.parameters()))
        return ImageExamples(images_NCHW, labels_of(samples).to(self.device))

    def logits(self, examples: ImageExamples, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits (B, 2, K) and labels (B, 2): what is predicted before an answer of one token."""
        chosen = list(rows)
        logits_BK = self.module(examples.images_NCHW[chosen])
        labels_B = examples.labels_N[chosen]
        labels_B2 = torch.stack([torch.full_like(labels_B, losses.IGNORED), labels_B], 1)
        return logits_BK[:, None].expand(-1, 2, -1), labels_B2

    def fit(self, examples: ImageExamples, rows: Sequence[int]) -> Fit:
        """See `Learner.fit`."""
        logits_B2K, labels_B2 = self.logits(examples, rows)
        right = int((logits_B2K[:, 0].detach().argmax(-1) == labels_B2[:, 1]).sum())
        return Fit(losses.answer_nll(logits_B2K, labels_B2) * len(rows), len(rows), right, right)

    def terms_of_cells(
        self,
        forget: ImageExamples,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
    ) -> LogitTermsOfCells:
        """See `Learner.terms_of_cells`; there is no noise on images."""
        return LogitTermsOfCells(
            lambda examples, rows, slots, noise, step: self.logits(examples, rows),
            forget, rows, retain, retaining, noises,
        )  # fmt: skip

    @torch.no_grad()
    def reference(
        self, retain: ImageExamples, batches: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """Per batch, (N, K) float32 log-probabilities of the classes."""
        return {
            str(index): losses.answer_token_distributions(*self.logits(retain, rows)).cpu()
            for index, rows in enumerate(batches)
        }

    def nearest(self, samples: pa.Table, target: pa.Table, count: int) -> pa.Table:
        """See `Learner.nearest`: by SSIM."""
        (ssim_N,) = ssim_pairs(pixels_of(target), pixels_of(samples))
        order = ssim_N.argsort(descending=True, stable=True).tolist()
        same = target["sample_id"][0].as_py()
        rows = samples.take(order[: count + 1])
        return rows.filter(pc.not_equal(rows["sample_id"], same)).slice(0, count)

    def random_answers(self, samples: pa.Table, draw: np.random.Generator) -> list[str]:
        """See `Learner.random_answers`: another class, all others alike likely."""
        classes = self.module.config.classes
        shifts = draw.integers(1, classes, len(samples))
        return [
            str((int(label) + int(shift)) % classes)
            for label, shift in zip(labels_of(samples), shifts, strict=True)
        ]

    @torch.no_grad()
    def ask(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> tuple[list[str], list[int]]:
        """See `Learner.ask`: the most likely class; drafts are of no use."""
        classes_N = self.module(self.encode(samples).images_NCHW).argmax(-1)
        return [str(int(label)) for label in classes_N], [1] * len(samples)

    def score(
        self,
        answers: Sequence[str],
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
    ) -> Scored:
        """See `Learner.score`: the attack on the weights, and what it finds of each sample.

        ssim is that of the best reconstruction with the sample; ssim_null the mean of what the same
        reconstructions reach with never-trained samples of its class, ssim_contrast the difference;
        ssim_lookalike what the best of the real other samples reaches; label_probability
        p(class|image) and loss its negative logarithm in nats. kinks and kink_closeness, see
        `kinks` (MLPs alone). For an auditor who holds all samples that any dose trains on, and does
        not know which were used: kkt_multiplier, and span_score of an MLP, see `membership`. p of
        ssim, kinks and loss: see `nulls.against_nulls`.
        """
        candidates_NCHW = self._attacked()
        found = best_matches(candidates_NCHW, pixels_of(samples), self.mean_CHW)
        null_M = best_matches(candidates_NCHW, pixels_of(self.unseen), self.mean_CHW).ssim_M
        null_N, p_N = self._against_unseen(samples, found.ssim_M, null_M)
        values = {
            "ssim": found.ssim_M,
            "ssim_null": null_N,
            "ssim_contrast": found.ssim_M - null_N,
            "ssim_p_value": p_N,
            "ssim_lookalike": self._lookalikes(samples),
            **self._losses(samples),
            **self._kinks(samples),
            **self._memberships(samples),
        }
        pictures = self._pictures(candidates_NCHW, found, null_N, p_N)
        return Scored(
            {
                name: value.double().cpu().numpy()
                for name, value in values.items()
                if name in self.metrics
            },
            {"reconstructions": pictures},
        )

    def _attacked(self) -> Tensor:
        """(N, C, H, W) on the CPU: the attack's candidates, the mean image added."""
        seed = generator_seed(self.study_seed, "attack", self.repetition)
        found = attack(self.module, self.samples_trained, self.config, seed, self.mean_CHW)
        return found.images_NCHW.detach().cpu().double()

    def _against_unseen(
        self, samples: pa.Table, score_N: Tensor, null_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        row_of = _rows(self.unseen)
        itself = [row_of.get(sample) for sample in samples["sample_id"].to_pylist()]
        return against_nulls(score_N, labels_of(samples), null_M, labels_of(self.unseen), itself)

    def _losses(self, samples: pa.Table) -> dict[str, Tensor]:
        loss_N, loss_M = (self._loss(part) for part in (samples, self.unseen))
        # Of losses near 0 only the logarithm can tell classes' means apart from their tails.
        _, p_N = self._against_unseen(samples, -loss_N.log(), -loss_M.log())
        return {"loss": loss_N, "label_probability": (-loss_N).exp(), "loss_p_value": p_N}

    @torch.no_grad()
    def _loss(self, samples: pa.Table) -> Tensor:
        """Negative log-likelihood of the classes in nats: (N,), float64 and never quite 0."""
        if not len(samples):
            return torch.zeros(0, dtype=torch.float64)
        examples = self.encode(samples)
        logits_NK = self.module(examples.images_NCHW).double()
        loss_N = cross_entropy(logits_NK, examples.labels_N, reduction="none")
        return loss_N.clamp(min=torch.finfo(torch.float64).tiny).cpu()

    def _kinks(self, samples: pa.Table) -> dict[str, Tensor]:
        if not isinstance(self.module, MLP):
            return {}
        angles_NH, angles_MH = (
            kinks.angles(self.module, self.encode(part).images_NCHW).cpu()
            for part in (samples, self.unseen)
        )
        if len(angles_MH):
            telling_H = kinks.telling_units(angles_MH)
            angles_NH, angles_MH = angles_NH[:, telling_H], angles_MH[:, telling_H]
        close_N, close_M = (kinks.closeness(angles) for angles in (angles_NH, angles_MH))
        _, p_N = self._against_unseen(samples, close_N, close_M)
        return {"kinks": kinks.count(angles_NH), "kink_closeness": close_N, "kink_p_value": p_N}

    def _memberships(self, samples: pa.Table) -> dict[str, Tensor]:
        if {"kkt_multiplier", "span_score"}.isdisjoint(self.metrics):
            return {}
        known, asked = self.encode(self.pool), self.encode(samples)
        row_of = _rows(self.pool)
        found = {
            "kkt_multiplier": kkt_membership(
                self.module,
                Labelled(known.images_NCHW, known.labels_N),
                Labelled(asked.images_NCHW, asked.labels_N),
                self.config.fit.weight_decay,
                self.samples_trained,
                [row_of.get(sample) for sample in samples["sample_id"].to_pylist()],
            )
        }
        if isinstance(self.module, MLP):
            found["span_score"] = span_scores(self.module, asked.images_NCHW, self.samples_trained)
        return found

    def _lookalikes(self, samples: pa.Table) -> Tensor:
        """SSIM with the best of the real other samples, fitted as candidates are.

        It says nothing of the model, so each sample's is computed once.
        """
        ids = samples["sample_id"].to_pylist()
        new = [row for row, sample in enumerate(ids) if sample not in self.lookalikes]
        if new:
            originals = pixels_of(samples.take(new))
            ssim_NM, _ = scaled_ssim_pairs(pixels_of(self.others), originals, self.mean_CHW)
            row_of = _rows(self.others)
            for column, row in enumerate(new):
                if ids[row] in row_of:
                    ssim_NM[row_of[ids[row]], column] = -1.0
                self.lookalikes[ids[row]] = float(ssim_NM[:, column].max())
        return torch.tensor([self.lookalikes[sample] for sample in ids], dtype=torch.float64)

    def _pictures(
        self, candidates_NCHW: Tensor, found: Matches, null_N: Tensor, p_N: Tensor
    ) -> list[dict[str, object]]:
        """Rows of `reconstructions`: the best match of each sample, as 8-bit pixels."""
        rows: list[dict[str, object]] = []
        for index, scale, ssim, null, p in zip(
            found.index_M, found.scale_M, found.ssim_M, null_N.tolist(), p_N.tolist(), strict=True
        ):
            image_CHW = self.mean_CHW + scale * (candidates_NCHW[index] - self.mean_CHW)
            pixels_HWC = (image_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            height, width, channels = pixels_HWC.shape
            rows.append(
                {
                    "candidate": int(index), "ssim": float(ssim),
                    "ssim_null": None if math.isnan(null) else null, "p_value": p,
                    "height": height, "width": width, "channels": channels,
                    "pixels": pixels_HWC.tobytes(),
                }
            )  # fmt: skip
        return rows


def _rows(samples: pa.Table) -> dict[int, int]:
    """The row of each sample_id."""
    return {sample: row for row, sample in enumerate(samples["sample_id"].to_pylist())}
