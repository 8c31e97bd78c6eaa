"""Measures greedy answers with and without drafts against transformers' generate, in one run.

    python benchmarks/generation.py [MODEL] [--device cpu] [--dtype float32] [--batch-size 16]

MODEL is a folder, a hub id or builtin:smollm2. Drafts are the plain answers themselves, the same
with one word changed in their middle, and the answers to other questions. Rows and passes are
counted at the model: a pass over R rows counts R. Seconds are the best of a few repeats: CPU time
of this process on a CPU (with one thread that of an idle core, whatever else runs), else elapsed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from distforget.engine.models import fetch_model, model_folder
from distforget.plan import make_plan
from distforget.store import Store
from distforget.study import Study
from distforget.tracks.text import open_learner
from distforget.tracks.text.learner import TextLearner

QUESTIONS = """What is the capital of France?
Which animal barks?
How many legs does a spider have?
Who wrote Romeo and Juliet?
What do bees make, and what do they make it from?
Explain in two sentences why the sky is blue.
Name three primary colours.
What is the boiling point of water at sea level?
Give me a short recipe for pancakes.
Why do leaves turn red in autumn?
What does a carpenter do all day?
Which planet is closest to the sun?
Translate "good morning" into Spanish.
What is the difference between a lake and a sea?
How does a bicycle stay upright?
Write one line about the moon.
What is 12 plus 30?
Who was Marie Curie?
Where do penguins live?
What should I pack for a day in the mountains?
Is a tomato a fruit or a vegetable, and who decides that?
Tell me what a glacier is.
How do I thank a neighbour who watered my plants?
What are the seasons of the year?""".splitlines()

Answers = tuple[list[str], list[int]]
Way = Callable[[], Answers]


def open_model(options: argparse.Namespace) -> TextLearner:
    """The model as a study would ask it."""
    study = Study.model_validate(
        {
            "name": "generation",
            "models": [{"name": "asked", "base": options.model}],
            "methods": ["TV"],
            "dtype": options.dtype,
            "verify": {
                "max_new_tokens": options.max_new_tokens,
                "batch_size": options.batch_size,
            },
        }
    )
    step = make_plan(study).models[0]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        fetch_model(step, study, store)
        place = model_folder(step, store)
        return open_learner(place, study, study.models[0], options.device)


def ask_transformers(learner: TextLearner, asked: pa.Table) -> Answers:
    """The baseline: batches of like length, each decoded until its last row has ended."""
    tokenizer, verify = learner.encoder.tokenizer, learner.verify
    prompts = learner.encoder.prompts(asked["question"].to_pylist())
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts, sizes = [""] * len(prompts), [0] * len(prompts)
    for start in range(0, len(order), verify.batch_size):
        rows = order[start : start + verify.batch_size]
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in rows]}, return_tensors="pt")
        output = learner.module.generate(
            **batch.to(learner.module.device),
            max_new_tokens=verify.max_new_tokens,
            do_sample=False,
            ends=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        width = batch["input_ids"].shape[1]
        for index, row in zip(rows, output[:, width:].tolist(), strict=True):
            eos = tokenizer.eos_token_id
            sizes[index] = row.index(eos) + 1 if eos in row else len(row)
            answer = tokenizer.decode(row[: sizes[index]], skip_special_tokens=True)
            texts[index] = answer.strip()
    return texts, sizes


def one_word_changed(answer: str) -> str:
    """The answer with another word in its middle."""
    words = answer.split(" ")
    words[len(words) // 2] = "Saturday"
    return " ".join(words)


class Counted:
    """Rows and positions that a model was given, pass by pass."""

    def __init__(self, learner: TextLearner) -> None:
        self.rows = self.positions = 0
        learner.module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module: object, _args: object, given: dict[str, Any]) -> None:
        self.rows += given["input_ids"].shape[0]
        self.positions += given["input_ids"].numel()


def measure(learner: TextLearner, ways: dict[str, Way], repeats: int) -> None:
    """Run the ways in turn and print what each took; the first is the baseline."""
    clock = time.process_time if learner.module.device.type == "cpu" else time.perf_counter
    best = dict.fromkeys(ways, float("inf"))
    counted, lines = Counted(learner), {}
    for _ in range(repeats):
        for name, way in ways.items():
            counted.rows = counted.positions = 0
            began = clock()
            texts, sizes = way()
            best[name] = min(best[name], clock() - began)
            lines[name] = texts, sum(sizes), counted.rows, counted.positions
    print("way                   seconds tokens/s  ratio  passes/token  positions/token  equal")
    baseline, expected = best["transformers"], lines["transformers"][0]
    for name, (texts, tokens, rows, positions) in lines.items():
        equal = sum(text == other for text, other in zip(texts, expected, strict=True))
        print(
            f"{name:20} {best[name]:8.2f} {tokens / best[name]:8.1f} {baseline / best[name]:6.2f} "
            f"{rows / tokens:13.3f} {positions / tokens:16.2f}  {equal} of {len(texts)}"
        )


def main() -> None:
    """Ask a model in all ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="builtin:smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    learner = open_model(options)
    asked = pa.table({"question": QUESTIONS})
    plain = learner.evidence(asked).answers()
    changed = [one_word_changed(answer) for answer in plain]
    ways: dict[str, Way] = {
        "transformers": lambda: ask_transformers(learner, asked),
        "plain": lambda: learner.evidence(asked).answers(),
        "own answer": lambda: learner.evidence(asked, drafts=plain).answers(),
        "one word changed": lambda: learner.evidence(asked, drafts=changed).answers(),
        "unrelated": lambda: learner.evidence(asked, drafts=[*plain[1:], plain[0]]).answers(),
    }
    measure(learner, ways, options.repeats)


if __name__ == "__main__":
    main()
