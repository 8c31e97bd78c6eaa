"""A language model that can be taught, unlearned, asked and scored (implements `Learner`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distforget import losses
from distforget.study import VerifyConfig
from distforget.tracks.base import Fit, RetainBatches
from distforget.tracks.text.encoding import Encoder, TextBatch, TextExamples
from distforget.tracks.text.generation import generate
from distforget.tracks.text.rouge import rouge_scores


class TextLearner:
    """Model, encoder and verification settings."""

    def __init__(self, module: PreTrainedModel, encoder: Encoder, verify: VerifyConfig) -> None:
        self.module = module
        self.encoder = encoder
        self.verify = verify

    def encode(self, samples: pa.Table) -> TextExamples:
        """See `Learner.encode`."""
        return self.encoder.encode(samples)

    def logits(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Logits (B, K, V) and labels (B, K) of the last K positions: those around the answers.

        Answers end at the right edge, so positions before the longest one need no logits.
        """
        device = next(self.module.parameters()).device
        labels_BT = batch.labels_BT
        keep = int((labels_BT != losses.IGNORED).sum(1).max()) + 1
        positions_BT = (batch.attention_mask_BT.cumsum(1) - 1).clamp(min=0)
        output = self.module(
            input_ids=batch.input_ids_BT.to(device),
            attention_mask=batch.attention_mask_BT.to(device),
            position_ids=positions_BT.to(device),
            use_cache=False,
            logits_to_keep=keep,
        )
        return output.logits, labels_BT[:, -keep:].to(device)

    def fit(self, examples: TextExamples, rows: Sequence[int]) -> Fit:
        """See `Learner.fit`."""
        logits, labels = self.logits(self.encoder.batch(examples, rows))
        tokens = int(losses.answer_token_count(labels))
        right_BK = (logits[:, :-1].detach().argmax(-1) == labels[:, 1:]) | (
            labels[:, 1:] == losses.IGNORED
        )
        wrong = int((~right_BK).sum())
        return Fit(
            losses.answer_nll(logits, labels) * tokens,
            tokens,
            tokens - wrong,
            int(right_BK.all(1).sum()),
        )

    def terms(self, forget: TextExamples, retain: RetainBatches | None) -> TextTermsOfStep:
        """See `Learner.terms`."""
        return TextTermsOfStep(self, forget, retain)

    @torch.no_grad()
    def reference(
        self, retain: TextExamples, batches: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """Per batch, (N, V) float32 log-probabilities at its answer positions."""
        found = {}
        for index, rows in enumerate(batches):
            logits, labels = self.logits(self.encoder.batch(retain, rows))
            found[str(index)] = losses.answer_token_distributions(logits, labels).cpu().contiguous()
        return found

    def ask(
        self, samples: pa.Table, drafts: Sequence[str] | None = None
    ) -> tuple[list[str], list[int]]:
        """See `Learner.ask`; the answers are greedy."""
        tokenizer = self.encoder.tokenizer
        found = generate(
            self.module,
            self.encoder.prompts(samples["question"].to_pylist()),
            max_new_tokens=self.verify.max_new_tokens,
            batch_size=self.verify.batch_size,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            drafts=None if drafts is None else self.encoder.answers(drafts),
        )
        texts = [
            str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in found.tokens
        ]
        return texts, [len(row) for row in found.tokens]

    def score(self, answers: Sequence[str], samples: pa.Table) -> Mapping[str, np.ndarray]:
        """ROUGE of answers against the samples' true ones."""
        table = rouge_scores(answers, samples["answer"].to_pylist(), self.verify.use_stemmer)
        return {name: table[name].to_numpy() for name in self.verify.metrics}


class TextTermsOfStep:
    """Gives each step its terms; keeps what all steps share."""

    def __init__(
        self, learner: TextLearner, forget: TextExamples, retain: RetainBatches | None
    ) -> None:
        self.learner = learner
        self.forget_batch = learner.encoder.batch(forget, range(len(forget.sizes)))
        self.retain = retain
        self.reference_logprobs_B: Tensor | None = None

    def __call__(self, step: int) -> TextTerms:
        """Fresh terms of step `step`."""
        return TextTerms(self, step)


class TextTerms:
    """Implements `methods.base.Terms`: a forward pass for the target, one for the retain batch."""

    def __init__(self, shared: TextTermsOfStep, step: int) -> None:
        self.shared = shared
        self.step = step

    @cached_property
    def _target(self) -> tuple[Tensor, Tensor]:
        return self.shared.learner.logits(self.shared.forget_batch)

    @cached_property
    def _batch_index(self) -> int:
        assert self.shared.retain is not None  # a method with a regulariser is given batches
        return self.step % len(self.shared.retain.batches)

    @cached_property
    def _retain(self) -> tuple[Tensor, Tensor]:
        retain = self.shared.retain
        assert retain is not None
        learner = self.shared.learner
        batch = learner.encoder.batch(retain.examples, retain.batches[self._batch_index])
        return learner.logits(batch)

    def target_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self._target)

    def target_logprobs_B(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_logprobs(*self._target)

    def target_reference_logprobs_B(self) -> Tensor:
        """See `Terms`; the first step is at theta_0, so its own pass is the reference."""
        if self.shared.reference_logprobs_B is None:
            assert self.step == 0
            self.shared.reference_logprobs_B = self.target_logprobs_B().detach()
        return self.shared.reference_logprobs_B

    def retain_nll(self) -> Tensor:
        """See `Terms`."""
        return losses.answer_nll(*self._retain)

    def retain_kl(self) -> Tensor:
        """See `Terms`."""
        logits, labels = self._retain
        assert self.shared.retain is not None
        reference_NV = self.shared.retain.reference[str(self._batch_index)].to(logits.device)
        return losses.answer_token_kl(
            losses.answer_token_distributions(logits, labels), reference_NV
        )
