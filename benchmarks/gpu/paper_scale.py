"""Measures one GPU on the paper's scale: tokens/s of fine-tuning, seconds of a cell, its memory.

    python benchmarks/gpu/paper_scale.py [--quick] [--device cuda] [--output paper_scale.json]

A model of the shape of Llama-3.2-1B (1.24 billion random weights, bfloat16) and a byte-level
tokenizer that is made here: no hub, no files. Fine-tuning takes batches of 128 rows of 73 tokens in
micro-batches of several sizes, the last as `run` finds it. A cell restores its weights, takes five
steps, and asks 106 questions, answers of at most 28 tokens. The baseline of fine-tuning is
micro-batches of 8 rows; that of asking is transformers' `generate` on the same prompts. About four
minutes on an H100; `--quick` is a dry run with a tiny model on any machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import PAPER_METHODS, machine, parser, report

from distforget import cell, schemas, selection
from distforget.engine.memory import tokens_at_once
from distforget.engine.weights import parameters
from distforget.method_choice import MethodChoice
from distforget.methods import resolve
from distforget.models import PromptConfig
from distforget.placement import Placement
from distforget.steppers import TorchStepper
from distforget.study import FinetuneConfig, Study, VerifyConfig
from distforget.tracks.base import RetainBatches
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.training import Finetuning

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
}
TINY = {
    **SHAPE,
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
QUESTIONS, ROWS, TARGETS = 106, 256, 2


def learner_of(shape: dict[str, int], device: str) -> TextLearner:
    """The model with random weights, and a tokenizer of single bytes."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet,
            show_progress=False,
        ),
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.pad_token = "</s>"
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device(device):
        module = LlamaForCausalLM(config).to(torch.bfloat16)
    module.eval()
    verify = VerifyConfig(max_new_tokens=28, batch_size=128)
    return TextLearner(module, Encoder(tokenizer, PromptConfig()), verify)


def samples() -> pa.Table:
    """Two targets and other rows, of about 73 tokens each."""
    rows = [
        {
            "dataset": "made-up", "sample_id": i, "role": "target" if i < TARGETS else "other",
            "target_index": i + 1 if i < TARGETS else None,
            "question": f"Where was person {i:03d} of the town born?",
            "answer": f"In Borkara, in {1900 + i % 100}, by {i:03d}.",
        }
        for i in range(ROWS)
    ]  # fmt: skip
    return schemas.from_rows("samples", rows)


def study() -> Study:
    """What cells need to know of it."""
    return Study.model_validate(
        {
            "name": "gpu",
            "data": {"targets": TARGETS, "others": ROWS - TARGETS, "similar": {"per_target": 1}},
            "models": [{"name": "m", "base": "org/model"}],
            "methods": list(PAPER_METHODS),
            "unlearn_targets": TARGETS,
            "unlearn": {"retain_batch_size": 4, "retain_batches": 8},
        }
    )


@contextmanager
def timed(device: str, into: dict[str, float]) -> Iterator[None]:
    """Seconds, and on a GPU the most memory (GiB), with all work done."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    yield
    if device != "cpu":
        torch.cuda.synchronize()
        into["GiB"] = torch.cuda.max_memory_allocated() / 2**30
    into["seconds"] = time.perf_counter() - began


def finetuning(learner: TextLearner, table: pa.Table, device: str) -> Iterator[dict[str, Any]]:
    """Tokens a second by size of the micro-batch; the first epoch of each warms up."""
    examples = learner.encode(table)
    longest, tokens = int(examples.sizes.max()), int(examples.sizes.sum())
    weights = sum(p.numel() for p in learner.module.parameters())
    chosen = tokens_at_once(Placement(), learner.module, 1)
    for rows in (8, 32, 128, chosen // longest):
        config = FinetuneConfig(batch_size=max(128, min(rows, ROWS)), max_epochs=2)
        stepper = TorchStepper(learner.module, 0.0, 1.0)
        training = Finetuning(learner, stepper, examples, config, (0, 0), (), rows * longest)
        found: dict[str, float] = {"GiB": 0.0}
        first = training._epoch(cell_zero())
        with timed(device, found):
            training._epoch(first)
        speed = tokens / found["seconds"]
        yield {
            "what": f"fine-tuning, micro-batches of {rows} rows",
            "tokens/s": speed,
            "TFLOP/s": 6 * weights * speed / 1e12,
            **found,
        }
        del stepper, training
        if device != "cpu":
            torch.cuda.empty_cache()


def cell_zero() -> Any:
    """The epoch before the first."""
    from distforget.training import Epoch

    return Epoch(0, 0, None, 0.0, 0.0, 0, 0.0, None)


def cells(learner: TextLearner, table: pa.Table, device: str) -> Iterator[dict[str, Any]]:
    """Seconds of five steps of each method, and of asking."""
    asked = study()
    start = {name: p.cpu().clone() for name, p in parameters(learner.module).items()}
    rows = selection.retain_rows(table, 0, 0, asked)
    batches = selection.retain_batches(len(rows), asked.unlearn.retain_batch_size)
    examples = learner.encode(rows)
    retain = RetainBatches(examples, batches, learner.reference(examples, batches))
    for again in (False, True):
        for name in PAPER_METHODS:
            what = cell.Cell(asked, resolve(MethodChoice(name=name)), 1, 0, 0)
            found: dict[str, float] = {"GiB": 0.0}
            with timed(device, found):
                cell.unlearn(learner, start, table, what, retain)
            if again:
                yield {"what": f"restore and unlearn, {name}", **found}
    questions = table.slice(0, QUESTIONS)
    for what, work in asking(learner, questions).items():
        work()
        found = {"GiB": 0.0}
        with timed(device, found):
            work()
        yield {"what": what, **found}


def asking(learner: TextLearner, questions: pa.Table) -> dict[str, Callable[[], object]]:
    """Ways to ask the questions."""
    texts = questions["question"].to_pylist()
    tokenizer = learner.encoder.tokenizer

    def generate() -> object:
        prompts = {"input_ids": learner.encoder.prompts(texts)}
        batch = tokenizer.pad(prompts, padding_side="left", return_tensors="pt")
        return learner.module.generate(
            **batch.to(learner.module.device), max_new_tokens=28, do_sample=False
        )

    said = learner.evidence(questions).answers()
    return {
        "ask 106 questions, transformers' generate (baseline)": generate,
        "ask 106 questions": lambda: learner.evidence(questions).answers(),
        "ask 106 questions, drafts that are right": lambda: learner.evidence(
            questions, drafts=said
        ).answers(),
        "log-probabilities of 106 answers": lambda: learner.evidence(questions).tokens(),
    }


def main() -> None:
    """One line each."""
    given = parser(__doc__).parse_args()
    learner = learner_of(TINY if given.quick else SHAPE, given.device)
    table = samples()
    about = machine(given.device)
    empty = {"what": "", "tokens/s": 0.0, "TFLOP/s": 0.0, "seconds": 0.0, "GiB": 0.0}
    rows = [
        {**empty, **row}
        for part in (finetuning, cells)
        for row in part(learner, table, given.device)
    ]
    report("one GPU at the paper's scale", rows, about, given.output)


if __name__ == "__main__":
    main()
