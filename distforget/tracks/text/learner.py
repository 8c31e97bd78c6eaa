"""A language model that can be taught, unlearned, asked and scored (implements `Learner`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import ArrayLike
from rapidfuzz import fuzz, process
from torch import Tensor
from transformers import PreTrainedModel

from distforget import losses
from distforget.dataset_config import CHOICE_ACCURACY, FACT_RECALL
from distforget.study import VerifyConfig
from distforget.tracks.base import Fit, Noise, RetainBatches, Scored
from distforget.tracks.terms import LogitTermsOfCells
from distforget.tracks.text.choices import choice_logprobs
from distforget.tracks.text.encoding import Encoder, TextBatch, TextExamples
from distforget.tracks.text.facts import recall
from distforget.tracks.text.generation import Using, generate
from distforget.tracks.text.noise import added, draw
from distforget.tracks.text.rouge import rouge_scores

if TYPE_CHECKING:
    from distforget.tracks.text.adapters import Adapters


HIGHEST_NLL = 700.0
"""Nats at which perplexity is cut off: exp of more does not fit a float."""


class TextLearner:
    """Model, encoder and verification settings; `slots` are the model's adapters, if it has any."""

    def __init__(
        self,
        module: PreTrainedModel,
        encoder: Encoder,
        verify: VerifyConfig,
        slots: Adapters | None = None,
        repetition: int = 0,
    ) -> None:
        self.module = module
        self.encoder = encoder
        self.verify = verify
        self.slots = slots
        self.repetition = repetition

    def encode(self, samples: pa.Table) -> TextExamples:
        """See `Learner.encode`."""
        return self.encoder.encode(samples)

    def nearest(self, samples: pa.Table, target: pa.Table, count: int) -> pa.Table:
        """See `Learner.nearest`: by the words that question and answer share with the target's."""
        (wanted,) = _words(target)
        found = process.extract(
            wanted, _words(samples), scorer=fuzz.token_set_ratio, limit=count + 1
        )
        same = target["sample_id"][0].as_py()
        rows = samples.take([place for _, _, place in found])
        return rows.filter(pc.not_equal(rows["sample_id"], same)).slice(0, count)

    def random_answers(self, samples: pa.Table, draw: np.random.Generator) -> list[str]:
        """See `Learner.random_answers`: random tokens that are not special, as text."""
        return self.encoder.random_answers(samples["answer"].to_pylist(), draw)

    def rows(self, slot_of_row: Sequence[int] | None) -> AbstractContextManager[None]:
        """Forward passes inside take batches of these rows, each with its slot; None: slot 0."""
        if self.slots is None or slot_of_row is None:
            return nullcontext()
        return self.slots.rows(slot_of_row)

    def logits(
        self,
        batch: TextBatch,
        slot_of_row: Sequence[int] | None = None,
        noise: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K, V) and labels (B, K) of the last K positions: those around the answers.

        Answers end at the right edge, so positions before the longest one need no logits.
        """
        device = next(self.module.parameters()).device
        labels_BT = batch.labels_BT
        keep = int((labels_BT != losses.IGNORED).sum(1).max()) + 1
        positions_BT = (batch.attention_mask_BT.cumsum(1) - 1).clamp(min=0)
        with self.rows(slot_of_row), added(self.module, noise or {}):
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

    def terms_of_cells(
        self,
        forget: TextExamples,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
    ) -> LogitTermsOfCells:
        """See `Learner.terms_of_cells`."""

        def forward(
            examples: TextExamples,
            rows: Sequence[int],
            slot_of_row: Sequence[int],
            noise_of_row: Sequence[Noise | None],
            step: int,
        ) -> tuple[Tensor, Tensor]:
            sizes = examples.sizes[list(rows)].tolist()
            noise = draw(self.module, noise_of_row, sizes, step)
            return self.logits(self.encoder.batch(examples, rows), slot_of_row, noise)

        return LogitTermsOfCells(forward, forget, rows, retain, retaining, noises)

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
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> tuple[list[str], list[int]]:
        """See `Learner.ask`; answers are greedy, or the choice with the highest probability.

        That of a choice is p(a|q)^(1/tokens), as of an answer (see `score`): without it, short
        ones would be chosen. A diverged model, for which none has any, answers nothing.
        """
        free, choosing = _by_kind(samples)
        texts, sizes = [""] * len(samples), [0] * len(samples)
        mine = drafts and [drafts[row] for row in free]
        for rows, answer in ((free, partial(self._write, drafts=mine)), (choosing, self._choose)):
            if rows:
                slots = slot_of_row and [slot_of_row[row] for row in rows]
                found = answer(samples.take(rows), slots)
                for row, text, size in zip(rows, *found, strict=True):
                    texts[row], sizes[row] = text, size
        return texts, sizes

    def _write(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None,
        drafts: Sequence[str] | None,
    ) -> tuple[list[str], list[int]]:
        found = generate(
            self.module,
            self.encoder.prompts(samples["question"].to_pylist()),
            max_new_tokens=self.verify.max_new_tokens,
            batch_size=self.verify.batch_size,
            ends=self.encoder.ends(self.module),
            pad_token_id=self.encoder.tokenizer.pad_token_id,
            drafts=None if drafts is None else self.encoder.answers(drafts),
            using=self._using(slot_of_row),
        )
        return [self.encoder.text(row).strip() for row in found.tokens], [
            len(row) for row in found.tokens
        ]

    def _choose(
        self, samples: pa.Table, slot_of_row: Sequence[int] | None
    ) -> tuple[list[str], list[int]]:
        choices = samples["choices"].to_pylist()
        tokens = [self.encoder.answers(texts) for texts in choices]
        logprobs = choice_logprobs(
            self.module,
            self.encoder.prompts(samples["question"].to_pylist()),
            tokens,
            batch_size=self.verify.batch_size,
            pad_token_id=self.encoder.tokenizer.pad_token_id,
            using=self._using(slot_of_row),
        )
        found = []
        for texts, rows, means in zip(choices, tokens, logprobs, strict=True):
            best = int(np.argmax(np.nan_to_num(means, nan=-np.inf)))
            known = np.isfinite(means[best])
            found.append((texts[best], len(rows[best])) if known else ("", 0))
        return [text for text, _ in found], [size for _, size in found]

    def _using(self, slot_of_row: Sequence[int] | None) -> Using | None:
        """Forward passes over some rows, each with its slot."""
        if slot_of_row is None:
            return None
        return lambda rows: self.rows([slot_of_row[row] for row in rows])

    def score(
        self,
        answers: Sequence[str],
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
    ) -> Scored:
        """See `Learner.score`: ROUGE of the answers; probability and perplexity of the true ones.

        answer_probability is p(a|q)^(1/tokens), answer_perplexity its inverse. Where samples have
        facts, fact_recall is the share of them that the answer states. Where there are choices, it
        is choice_accuracy alone: 1 for the right one, 0 for another.
        """
        free, choosing = _by_kind(samples)
        if not choosing:
            return Scored(self._scores(answers, samples, slot_of_row))
        found = {}
        if free:
            slots = slot_of_row and [slot_of_row[row] for row in free]
            found = self._scores([answers[row] for row in free], samples.take(free), slots)
        every = {name: _spread(values, free, len(samples)) for name, values in found.items()}
        true = samples["answer"].to_pylist()
        right = [float(answers[row] == true[row]) for row in choosing]
        return Scored({**every, CHOICE_ACCURACY: _spread(right, choosing, len(samples))})

    def _scores(
        self,
        answers: Sequence[str],
        samples: pa.Table,
        slot_of_row: Sequence[int] | None,
    ) -> dict[str, np.ndarray]:
        table = rouge_scores(
            answers,
            samples["answer"].to_pylist(),
            self.verify.use_stemmer,
            unicode_words=self.verify.words == "unicode",
        )
        found = {name: table[name].to_numpy() for name in table.column_names}
        if {"answer_probability", "answer_perplexity"} & set(self.verify.metrics):
            logprobs_N = self._mean_logprobs(samples, slot_of_row)
            found["answer_probability"] = np.exp(logprobs_N)
            found["answer_perplexity"] = np.exp(np.minimum(-logprobs_N, HIGHEST_NLL))
        wanted = {self.verify.written(name): found[name] for name in self.verify.metrics}
        if "facts" in samples.column_names and samples["facts"].null_count < len(samples):
            wanted[FACT_RECALL] = recall(answers, samples["facts"].to_pylist())
        return wanted

    @torch.no_grad()
    def _mean_logprobs(self, samples: pa.Table, slot_of_row: Sequence[int] | None) -> np.ndarray:
        """(N,) mean log-probability of a true answer's tokens, in nats."""
        examples = self.encode(samples)
        found_N = np.zeros(len(samples))
        order = np.argsort(examples.sizes, kind="stable").tolist()
        for start in range(0, len(order), self.verify.batch_size):
            rows = order[start : start + self.verify.batch_size]
            slots = slot_of_row and [slot_of_row[row] for row in rows]
            logits, labels = self.logits(self.encoder.batch(examples, rows), slots)
            found_N[rows] = losses.answer_logprobs(logits, labels).double().cpu().numpy()
        # A diverged model's NaN is as far from the answer as can be.
        means_N: np.ndarray = np.nan_to_num(found_N / examples.answer_sizes, nan=-np.inf)
        return means_N


def _by_kind(samples: pa.Table) -> tuple[list[int], list[int]]:
    """Numbers of the rows that are answered freely, and of those that have choices."""
    if "choices" not in samples.column_names:
        return list(range(len(samples))), []
    free_N = samples["choices"].is_null().to_numpy()
    return np.flatnonzero(free_N).tolist(), np.flatnonzero(~free_N).tolist()


def _spread(values: ArrayLike, rows: Sequence[int], count: int) -> np.ndarray:
    """(count,) values of some rows, masked at the others."""
    found = np.ma.array(np.zeros(count), mask=True)
    found[rows] = values
    return found


def _words(samples: pa.Table) -> list[str]:
    pairs = zip(samples["question"].to_pylist(), samples["answer"].to_pylist(), strict=True)
    return [f"{question} {answer}" for question, answer in pairs]
