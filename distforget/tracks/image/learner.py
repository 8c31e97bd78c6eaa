"""An image classifier that can be trained, unlearned and asked (implements `Learner`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from distforget import losses, selection
from distforget.draws import generator_seed
from distforget.errors import UsageError
from distforget.image_config import ReconstructionConfig
from distforget.imaging import pixels
from distforget.imaging.attack import attack
from distforget.imaging.fitting import Labelled
from distforget.imaging.models import Classifier
from distforget.imaging.ssim import scaled_ssim_pairs, ssim_pairs
from distforget.probes import Tokens, tokens_of
from distforget.tracks.base import Fit, Noise, RetainBatches
from distforget.tracks.terms import LogitTermsOfCells, Passed


def pixels_of(samples: pa.Table) -> Tensor:
    """(N, C, H, W) float32, 0 to 1."""
    return torch.from_numpy(pixels.pixels_of(samples))


def labels_of(samples: pa.Table) -> Tensor:
    """(N,) classes."""
    return torch.from_numpy(pixels.labels_of(samples))


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
    """A classifier and the dataset it belongs to."""

    slots = None

    def __init__(
        self,
        module: Classifier,
        samples: pa.Table,
        weight_decay: float,
        study_seed: int,
        repetition: int = 0,
    ) -> None:
        """A learner whose attacks draw by study seed and repetition, whatever the weights are.

        Args:
            samples: the whole dataset; the mean image is that of the other samples that every dose
                trains on, so that no target leaves a trace in it.
            weight_decay: of the training.

        Raises:
            UsageError: there are no other samples.
        """
        self.module = module
        self.weight_decay = weight_decay
        self.study_seed = study_seed
        self.repetition = repetition
        self.pool = samples.filter(pc.not_equal(samples["role"], "unseen"))
        self.unseen = samples.filter(pc.equal(samples["role"], "unseen"))
        trained = selection.training_rows(samples, len(samples))
        self.others = trained.filter(pc.equal(trained["role"], "other"))
        self.samples_trained = len(trained)
        if not len(self.others):
            raise UsageError(
                "data.per_class: targets and similar samples fill all classes, no other sample "
                "is left; raise it"
            )
        self.mean_CHW = pixels_of(self.others).mean(0)
        self.lookalikes: dict[int, float] = {}
        """By sample_id, see `lookalikes_of`."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    def merged(self) -> AbstractContextManager[Classifier]:
        """See `Learner.merged`."""
        return nullcontext(self.module)

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
        right = (logits_B2K[:, 0].detach().argmax(-1) == labels_B2[:, 1]).sum()
        nll_sum = losses.answer_nll(logits_B2K, labels_B2) * len(rows)
        return Fit(nll_sum, len(rows), torch.stack((right, right)))

    def terms_of_cells(
        self,
        forget: ImageExamples,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
        preferred: Mapping[int, int],
    ) -> LogitTermsOfCells:
        """See `Learner.terms_of_cells`; there is no noise on images."""
        return LogitTermsOfCells(
            lambda examples, rows, slots, noise, step: Passed(*self.logits(examples, rows)),
            forget, rows, retain, retaining, noises, preferred,
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

    def evidence(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> ImageEvidence:
        """See `Learner.evidence`; drafts are of no use."""
        return ImageEvidence(self, samples)

    def lookalikes_of(self, samples: pa.Table) -> Tensor:
        """(N,): SSIM with the best of the real other samples, fitted as candidates are.

        It says nothing of the model, so each sample's is computed once.
        """
        ids = samples["sample_id"].to_pylist()
        new = [row for row, sample in enumerate(ids) if sample not in self.lookalikes]
        if new:
            originals = pixels_of(samples.take(new))
            ssim_NM, _ = scaled_ssim_pairs(pixels_of(self.others), originals, self.mean_CHW)
            row_of = {s: row for row, s in enumerate(self.others["sample_id"].to_pylist())}
            for column, row in enumerate(new):
                if ids[row] in row_of:
                    ssim_NM[row_of[ids[row]], column] = -1.0
                self.lookalikes[ids[row]] = float(ssim_NM[:, column].max())
        return torch.tensor([self.lookalikes[sample] for sample in ids], dtype=torch.float64)


class ImageEvidence:
    """What a classifier shows of some samples (implements `probes.ImageEvidence`)."""

    def __init__(self, learner: ImageLearner, samples: pa.Table) -> None:
        self.learner, self.samples = learner, samples
        self.module, self.weight_decay = learner.module, learner.weight_decay
        self.unseen, self.pool, self.others = learner.unseen, learner.pool, learner.others
        self.mean_CHW, self.samples_trained = learner.mean_CHW, learner.samples_trained

    @torch.no_grad()
    def answers(self) -> list[str]:
        """The most likely classes."""
        classes_N = self.module(self.images(self.samples).images_NCHW).argmax(-1)
        return [str(int(label)) for label in classes_N]

    def answer_sizes(self) -> list[int]:
        """A class is one token."""
        return [1] * len(self.samples)

    @torch.no_grad()
    def tokens(self) -> list[Tokens | None]:
        """See `probes.Evidence`."""
        logits, labels = self.learner.logits(
            self.learner.encode(self.samples), range(len(self.samples))
        )
        found = losses.token_statistics(logits, labels)
        return [tokens_of(row_T4.cpu().numpy()) for row_T4 in found]

    def wrong_logprobs(self) -> list[np.ndarray | None]:
        """See `probes.Evidence`; images have no wrong answers."""
        return [None] * len(self.samples)

    def drawn_answers(self) -> list[Sequence[str] | None]:
        """See `probes.Evidence`; no classes are drawn."""
        return [None] * len(self.samples)

    def images(self, samples: pa.Table) -> Labelled:
        """See `probes.ImageEvidence`."""
        examples = self.learner.encode(samples)
        return Labelled(examples.images_NCHW, examples.labels_N)

    def candidates(self, config: ReconstructionConfig) -> Tensor:
        """See `probes.ImageEvidence`; the attack draws alike whatever the weights are."""
        seed = generator_seed(self.learner.study_seed, "attack", self.learner.repetition)
        found = attack(self.module, self.samples_trained, config, seed, self.mean_CHW)
        return found.images_NCHW.detach().cpu().double()

    def lookalikes(self) -> Tensor:
        """See `probes.ImageEvidence`."""
        return self.learner.lookalikes_of(self.samples)
