"""Which tokens are learned, and that padding changes nothing: checked against the bare model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from distforget import losses
from distforget.engine.finetune import check_lengths
from distforget.errors import UsageError
from distforget.models import PromptConfig
from distforget.study import VerifyConfig
from distforget.tracks.text.encoding import Encoder, TextBatch
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.asking import said
from tests.conftest import make_tiny_model

END_OF_ANSWER = 1  # "</s>" of the tiny tokenizer
QUESTIONS = (
    "Where was the man born?",
    "Who?",
    "In the town, where was he born in 1950, and where was the other man of the town born?",
    "Was he?",
)
ANSWERS = ("In the town.", "He was born in 1950, in the town where the man was born.", "No", "Yes.")

CHAT = {"llama": True, "gpt_neo": False, "opt": False}
ARCHITECTURES = tuple(CHAT)

Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The folder of an architecture's tiny model, made once."""
    root = tmp_path_factory.mktemp("models")

    def folder(architecture: str) -> Path:
        place = root / architecture
        if not place.exists():
            make_tiny_model(place, architecture, CHAT[architecture])
        return place

    return folder


def samples() -> pa.Table:
    return pa.table({"question": list(QUESTIONS), "answer": list(ANSWERS)})


def sharp_learner(folder: Path, prompt: PromptConfig | None = None) -> TextLearner:
    """A learner in float64 whose weights are large: a wrong position or mask shows in its loss."""
    encoder = Encoder(load_tokenizer(folder), prompt or PromptConfig())
    model = load_model(folder, "float32", "cpu").double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.4, generator=draw)
    return TextLearner(model, encoder, VerifyConfig(max_new_tokens=5))


def token_ids(folder: Path, text: str) -> list[int]:
    """Tokens by the tokenizers library alone."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [int(i) for i in raw.encode(text, add_special_tokens=False).ids]


def prompt_text(architecture: str, question: str) -> str:
    if CHAT[architecture]:
        return f"<s>user\n{question}</s>\n<s>assistant\n"
    return f"Question: {question}\nAnswer: "


def batch_of(learner: TextLearner, rows: list[int]) -> TextBatch:
    return learner.encoder.batch(learner.encode(samples()), rows)


def bare_answer_logprobs(
    learner: TextLearner, folder: Path, architecture: str
) -> list[list[float]]:
    """log p of each answer token of each row: one full forward pass a row, without padding."""
    found = []
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        before = token_ids(folder, prompt_text(architecture, question))
        after = [*token_ids(folder, answer), END_OF_ANSWER]
        with torch.no_grad():
            logits_TV = learner.module(input_ids=torch.tensor([before + after])).logits[0]
        row = []
        for place, token in enumerate(after):
            logits_V = logits_TV[len(before) + place - 1].double()
            row.append(float(logits_V[token] - torch.logsumexp(logits_V, 0)))
        found.append(row)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exactly_the_answer_and_its_end_are_learned(architecture: str, folders: Folders) -> None:
    folder = folders(architecture)
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    batch = encoder.batch(encoder.encode(samples()), range(len(QUESTIONS)))
    for row, answer in enumerate(ANSWERS):
        labels = batch.labels_BT[row]
        learned = [*token_ids(folder, answer), END_OF_ANSWER]
        assert labels[labels != -100].tolist() == learned
        assert (labels[-len(learned) :] != -100).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_of_several_lengths_are_padded_on_the_left(
    architecture: str, folders: Folders
) -> None:
    folder = folders(architecture)
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    batch = encoder.batch(encoder.encode(samples()), range(len(QUESTIONS)))
    width = batch.input_ids_BT.shape[1]
    sizes = set()
    for row, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        text = prompt_text(architecture, question)
        tokens = [*token_ids(folder, text), *token_ids(folder, answer), END_OF_ANSWER]
        sizes.add(len(tokens))
        padding = width - len(tokens)
        assert batch.input_ids_BT[row, padding:].tolist() == tokens
        assert batch.attention_mask_BT[row].tolist() == [0] * padding + [1] * len(tokens)
    assert len(sizes) > 1
    assert width == max(sizes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_count_prompt_and_answer(architecture: str, folders: Folders) -> None:
    folder = folders(architecture)
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    examples = encoder.encode(samples())
    answers = [len(token_ids(folder, a)) + 1 for a in ANSWERS]
    prompts = [len(token_ids(folder, prompt_text(architecture, q))) for q in QUESTIONS]
    assert examples.answer_sizes.tolist() == answers
    assert examples.sizes.tolist() == np.add(prompts, answers).tolist()


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 1], [3]])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_and_cut_logits_leave_the_loss_as_it_is(
    architecture: str, rows: list[int], folders: Folders
) -> None:
    folder = folders(architecture)
    learner = sharp_learner(folder)
    bare = [bare_answer_logprobs(learner, folder, architecture)[i] for i in rows]
    with torch.no_grad():
        logits, labels = learner.logits(batch_of(learner, rows))
    assert int((labels != -100).sum()) == sum(map(len, bare))
    assert logits.shape[1] == max(map(len, bare)) + 1
    every = [value for row in bare for value in row]
    assert float(losses.answer_nll(logits, labels)) == pytest.approx(-np.mean(every), abs=1e-5)
    assert losses.answer_logprobs(logits, labels).tolist() == pytest.approx(
        [sum(row) for row in bare], abs=1e-4
    )
    assert np.std(every) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fit_sums_over_the_answer_tokens(architecture: str, folders: Folders) -> None:
    folder = folders(architecture)
    learner = sharp_learner(folder)
    bare = bare_answer_logprobs(learner, folder, architecture)
    with torch.no_grad():
        fit = learner.fit(learner.encode(samples()), range(len(QUESTIONS)))
    assert float(fit.nll_sum) == pytest.approx(-sum(map(sum, bare)), abs=1e-4)
    assert fit.answer_tokens == sum(map(len, bare))


def test_fit_counts_right_tokens_and_rows_that_are_right_throughout(folders: Folders) -> None:
    learner = sharp_learner(folders("llama"))
    examples = learner.encode(samples())
    batch = learner.encoder.batch(examples, [1, 3])
    with torch.no_grad():
        logits, labels = learner.logits(batch)
        right = tokens = rows = 0
        for row in range(2):
            hits = [
                int(logits[row, t - 1].argmax()) == int(labels[row, t])
                for t in range(1, labels.shape[1])
                if int(labels[row, t]) != -100
            ]
            right, tokens, rows = right + sum(hits), tokens + len(hits), rows + all(hits)
        fit = learner.fit(examples, [1, 3])
    assert (fit.answer_tokens, fit.correct.tolist()) == (tokens, [right, rows])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_do_not_depend_on_who_else_is_asked(architecture: str, folders: Folders) -> None:
    learner = sharp_learner(folders(architecture))
    together = said(learner, samples())
    alone = [said(learner, samples().slice(i, 1)) for i in range(len(QUESTIONS))]
    assert together == ([t for (t,), _ in alone], [s for _, (s,) in alone])
    assert len(set(together[0])) > 1


def test_a_system_message_comes_first(folders: Folders) -> None:
    folder = folders("llama")
    encoder = Encoder(load_tokenizer(folder), PromptConfig(system="Be brief."))
    text = "<s>system\nBe brief.</s>\n<s>user\nWho?</s>\n<s>assistant\n"
    assert encoder.prompts(["Who?"]) == [token_ids(folder, text)]


def test_plain_style_leaves_a_chat_template_aside(folders: Folders) -> None:
    folder = folders("llama")
    encoder = Encoder(load_tokenizer(folder), PromptConfig(style="plain", plain="Q {question} A "))
    assert encoder.prompts(["Who?"]) == [token_ids(folder, "Q Who? A ")]


def test_chat_style_needs_a_template(folders: Folders) -> None:
    tokenizer = load_tokenizer(folders("opt"))
    with pytest.raises(UsageError, match=r"prompt\.style is 'chat'.*use 'auto' or 'plain'"):
        Encoder(tokenizer, PromptConfig(style="chat"))


def test_an_unknown_style_and_a_plain_template_without_the_question_are_refused() -> None:
    with pytest.raises(ValidationError, match="style"):
        PromptConfig.model_validate({"style": "telegram"})
    with pytest.raises(ValidationError, match=r"plain must contain \{question\}"):
        PromptConfig(plain="Answer: ")


def test_a_sample_that_is_too_long_is_refused_before_training(folders: Folders) -> None:
    encoder = Encoder(load_tokenizer(folders("llama")), PromptConfig())
    rows = samples().add_column(0, "sample_id", pa.array([5, 6, 7, 8]))
    examples = encoder.encode(rows)
    longest = int(examples.sizes.max())
    check_lengths(examples, rows, longest)
    with pytest.raises(
        UsageError, match=rf"max_tokens is {longest - 1}, but sample 7 has {longest}"
    ):
        check_lengths(examples, rows, longest - 1)
