"""A language model that can be trained, unlearned and asked (implements `Learner`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rapidfuzz import fuzz, process
from torch import Tensor, nn
from transformers import PreTrainedModel

from distforget import losses
from distforget.draws import generator_seed
from distforget.probes import Tokens, free_rows, tokens_of
from distforget.study import VerifyConfig
from distforget.tracks.base import Fit, Noise, RetainBatches
from distforget.tracks.terms import LogitTermsOfCells, Passed
from distforget.tracks.text.choices import choice_logprobs
from distforget.tracks.text.encoding import Encoder, TextBatch, TextExamples
from distforget.tracks.text.generation import Choose, Using, drawing, generate
from distforget.tracks.text.noise import added, draw

if TYPE_CHECKING:
    from distforget.tracks.text.adapters import Adapters


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

    @property
    def _model(self) -> PreTrainedModel:
        """The model itself where `module` is DeepSpeed's engine around it."""
        return getattr(self.module, "module", self.module)

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

    def merged(self) -> AbstractContextManager[nn.Module]:
        """See `Learner.merged`."""
        return nullcontext(self.module) if self.slots is None else self.slots.merged()

    def logits(
        self,
        batch: TextBatch,
        slot_of_row: Sequence[int] | None = None,
        noise: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K, V) and labels (B, K) of the last K positions: those around the answers.

        Labels stay on the CPU: where answers are is known there, without waiting for the device.
        Answers end at the right edge, so positions before the longest one need no logits.
        """
        logits, labels, _ = self._passed(batch, slot_of_row, noise, hidden=False)
        return logits, labels

    def _passed(
        self,
        batch: TextBatch,
        slot_of_row: Sequence[int] | None,
        noise: Mapping[int, Tensor] | None,
        hidden: bool,
    ) -> Passed:
        """The same, with hidden states (B, K, H) if asked for."""
        device = next(self.module.parameters()).device
        labels_BT = batch.labels_BT
        keep = int((labels_BT != losses.IGNORED).sum(1).max()) + 1
        positions_BT = (batch.attention_mask_BT.cumsum(1) - 1).clamp(min=0)
        with self.rows(slot_of_row), added(self._model, noise or {}):
            output = self.module(
                input_ids=batch.input_ids_BT.to(device, non_blocking=True),
                attention_mask=batch.attention_mask_BT.to(device, non_blocking=True),
                position_ids=positions_BT.to(device, non_blocking=True),
                use_cache=False,
                logits_to_keep=keep,
                output_hidden_states=hidden,
            )
        states = [states_BTH[:, -keep:] for states_BTH in output.hidden_states or ()]
        return Passed(output.logits, labels_BT[:, -keep:], states)

    def fit(self, examples: TextExamples, rows: Sequence[int]) -> Fit:
        """See `Learner.fit`."""
        logits, labels = self.logits(self.encoder.batch(examples, rows))
        tokens = int(losses.answer_token_count(labels))
        expected_BK = labels[:, 1:].to(logits.device, non_blocking=True)
        right_BK = logits[:, :-1].detach().argmax(-1) == expected_BK
        ignored_BK = expected_BK == losses.IGNORED
        exact = (right_BK | ignored_BK).all(1).sum()
        return Fit(
            losses.answer_nll(logits, labels) * tokens,
            tokens,
            torch.stack(((right_BK & ~ignored_BK).sum(), exact)),
        )

    def terms_of_cells(
        self,
        forget: TextExamples,
        rows: Sequence[Sequence[int]],
        retain: RetainBatches | None,
        retaining: Collection[int],
        noises: Sequence[Noise | None],
        preferred: Mapping[int, int],
    ) -> LogitTermsOfCells:
        """See `Learner.terms_of_cells`."""

        def forward(
            examples: TextExamples,
            rows: Sequence[int],
            slot_of_row: Sequence[int],
            noise_of_row: Sequence[Noise | None],
            step: int,
        ) -> Passed:
            sizes = examples.sizes[list(rows)].tolist()
            noise = draw(self._model, noise_of_row, sizes, step)
            return self._passed(self.encoder.batch(examples, rows), slot_of_row, noise, hidden=True)

        return LogitTermsOfCells(forward, forget, rows, retain, retaining, noises, preferred)

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

    def evidence(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> TextEvidence:
        """See `Learner.evidence`."""
        return TextEvidence(self, samples, slot_of_row, drafts)


def _words(samples: pa.Table) -> list[str]:
    pairs = zip(samples["question"].to_pylist(), samples["answer"].to_pylist(), strict=True)
    return [f"{question} {answer}" for question, answer in pairs]


class TextEvidence:
    """What a language model shows of some samples, each found once (see `probes.Evidence`)."""

    def __init__(
        self,
        learner: TextLearner,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None = None,
        drafts: Sequence[str] | None = None,
    ) -> None:
        """Nothing is computed before a probe asks for it.

        Args:
            slot_of_row: whose weights answer; None: slot 0, or the model where there are no slots.
            drafts: see `Learner.evidence`.
        """
        self.learner, self.samples = learner, samples
        self.slot_of_row, self.drafts = slot_of_row, drafts

    def answers(self) -> list[str]:
        """Greedy answers, or the choice with the highest probability.

        That of a choice is p(a|q)^(1/tokens): without it, short ones would be chosen. A diverged
        model, for which none has any, answers nothing.
        """
        return self._answered[0]

    def answer_sizes(self) -> list[int]:
        """Tokens generated or chosen, the end of the answer included if it was reached."""
        return self._answered[1]

    def tokens(self) -> list[Tokens | None]:
        """See `probes.Evidence`."""
        return self._tokens

    def wrong_logprobs(self) -> list[np.ndarray | None]:
        """See `probes.Evidence`."""
        return self._wrong_logprobs

    def drawn_answers(self) -> list[Sequence[str] | None]:
        """See `probes.Evidence`; as many as the study asks for."""
        return self._drawn_answers

    @cached_property
    def _wrong_logprobs(self) -> list[np.ndarray | None]:
        """See `probes.Evidence`."""
        rows = np.flatnonzero(self.samples["wrong_answers"].is_valid().to_numpy()).tolist()
        found: list[np.ndarray | None] = [None] * len(self.samples)
        if rows:
            some = self.samples.take(rows)
            means = self._logprobs_of(some, some["wrong_answers"].to_pylist(), self._slots(rows))
            for row, of_one in zip(rows, means, strict=True):
                found[row] = of_one.astype(np.float32)
        return found

    @cached_property
    def _answered(self) -> tuple[list[str], list[int]]:
        free = free_rows(self.samples)
        choosing = np.setdiff1d(np.arange(len(self.samples)), free).tolist()
        texts, sizes = [""] * len(self.samples), [0] * len(self.samples)
        mine = self.drafts and [self.drafts[row] for row in free]
        for rows, answer in ((free, partial(self._write, drafts=mine)), (choosing, self._choose)):
            if rows:
                found = answer(self.samples.take(rows), self._slots(rows))
                for row, text, size in zip(rows, *found, strict=True):
                    texts[row], sizes[row] = text, size
        return texts, sizes

    @cached_property
    def _drawn_answers(self) -> list[Sequence[str] | None]:
        found: list[Sequence[str] | None] = [None] * len(self.samples)
        count, free = self.learner.verify.drawn, free_rows(self.samples)
        if not count or not free:
            return found
        rows = [row for row in free for _ in range(count)]
        questions = self.samples.take(rows)["question"].to_pylist()
        seeds = [
            generator_seed(0, "drawn", question, place % count)
            for place, question in enumerate(questions)
        ]
        choose = drawing(seeds, self.learner.verify.temperature)
        texts, _ = self._write(self.samples.take(rows), self._slots(rows), None, choose)
        for place, row in enumerate(free):
            found[row] = texts[place * count : (place + 1) * count]
        return found

    def _slots(self, rows: Sequence[int]) -> list[int] | None:
        return None if self.slot_of_row is None else [self.slot_of_row[row] for row in rows]

    def _write(
        self,
        samples: pa.Table,
        slot_of_row: Sequence[int] | None,
        drafts: Sequence[str] | None,
        choose: Choose | None = None,
    ) -> tuple[list[str], list[int]]:
        learner, encoder = self.learner, self.learner.encoder
        found = generate(
            learner.module,
            encoder.prompts(samples["question"].to_pylist()),
            max_new_tokens=learner.verify.max_new_tokens,
            batch_size=learner.verify.batch_size,
            ends=encoder.ends(learner.module),
            pad_token_id=encoder.tokenizer.pad_token_id,
            drafts=None if drafts is None else encoder.answers(drafts),
            using=self._using(slot_of_row),
            choose=choose,
        )
        texts = [encoder.text(row).strip() for row in found.tokens]
        return texts, [len(row) for row in found.tokens]

    def _choose(
        self, samples: pa.Table, slot_of_row: Sequence[int] | None
    ) -> tuple[list[str], list[int]]:
        choices = samples["choices"].to_pylist()
        found = []
        for texts, means in zip(
            choices, self._logprobs_of(samples, choices, slot_of_row), strict=True
        ):
            best = int(np.argmax(np.nan_to_num(means, nan=-np.inf)))
            known = np.isfinite(means[best])
            (tokens,) = self.learner.encoder.answers([texts[best]])
            found.append((texts[best], len(tokens)) if known else ("", 0))
        return [text for text, _ in found], [size for _, size in found]

    def _logprobs_of(
        self,
        samples: pa.Table,
        answers: Sequence[Sequence[str]],
        slot_of_row: Sequence[int] | None,
    ) -> list[np.ndarray]:
        """Mean log p of a token of some answers to each question."""
        learner, encoder = self.learner, self.learner.encoder
        return choice_logprobs(
            learner.module,
            encoder.prompts(samples["question"].to_pylist()),
            [encoder.answers(texts) for texts in answers],
            batch_size=learner.verify.batch_size,
            pad_token_id=encoder.tokenizer.pad_token_id,
            using=self._using(slot_of_row),
        )

    def _using(self, slot_of_row: Sequence[int] | None) -> Using | None:
        """Forward passes over some rows, each with its slot."""
        if slot_of_row is None:
            return None
        return lambda rows: self.learner.rows([slot_of_row[row] for row in rows])

    @cached_property
    @torch.no_grad()
    def _tokens(self) -> list[Tokens | None]:
        learner, free = self.learner, free_rows(self.samples)
        found: list[Tokens | None] = [None] * len(self.samples)
        if not free:
            return found
        examples = learner.encode(self.samples.take(free))
        order = np.argsort(examples.sizes, kind="stable").tolist()
        for start in range(0, len(order), learner.verify.batch_size):
            rows = order[start : start + learner.verify.batch_size]
            slots = self._slots([free[row] for row in rows])
            logits, labels = learner.logits(learner.encoder.batch(examples, rows), slots)
            each = losses.token_statistics(logits, labels)
            for row, found_T4 in zip(rows, each, strict=True):
                found[free[row]] = tokens_of(found_T4.cpu().numpy())
        return found
