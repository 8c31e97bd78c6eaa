"""Tiny real models and studies: real code, real tokenizer files, random weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.running import Undisturbed, run

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as distforget does, before torch is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def make_tiny_model(folder: Path, architecture: str = "llama", chat: bool = True) -> Path:
    """A model of ten thousand weights with a byte-level tokenizer, as save_pretrained writes it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GPTNeoConfig,
        GPTNeoForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PreTrainedTokenizerFast,
    )

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["Where was the man born? He was born in the town in 1950."], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    vocabulary = len(tokenizer)
    torch.manual_seed(0)
    model: Any
    if architecture == "llama":
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    elif architecture == "gpt_neo":
        model = GPTNeoForCausalLM(
            GPTNeoConfig(
                vocab_size=vocabulary, hidden_size=32, num_layers=2, num_heads=4,
                attention_types=[[["global", "local"], 1]], max_position_embeddings=512,
                intermediate_size=64, bos_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
    else:
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, ffn_dim=64,
                num_attention_heads=4, max_position_embeddings=512, word_embed_proj_dim=32,
                bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this test run see."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def tiny_model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a chat template, made by the process that needs it first."""
    folder = shared / "llama"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make_tiny_model(tmp_path_factory.mktemp("tiny") / "llama").rename(folder)
    return folder


def study_content(model: Path | str, **changes: Any) -> dict[str, Any]:
    """A study that a tiny model runs in seconds, as it stands in YAML."""
    return {
        "name": "tiny",
        "data": {"targets": 3, "others": 4, "similar": {"per_target": 3}},
        "models": [{"name": "tiny", "base": str(model)}],
        "doses": [0, "all"],
        "methods": ["GA_KLN", "TV"],
        "unlearn_targets": 2,
        "finetune": {"max_epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
        "unlearn": {"retain_batch_size": 2, "retain_batches": 2},
        "verify": {"max_new_tokens": 6, "similar": 3, "others": 2},
        **changes,
    }


def write_questions(path: Path) -> dict[str, Any]:
    """A file of multiple-choice questions, and the probe that asks them."""
    questions = [
        {
            "question": f"Where is thing {i}?",
            "choices": {"label": ["A", "B", "C"], "text": ["here", f"in town {i}", "on the moon"]},
            "answerKey": "ABC"[i % 3],
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return {"kind": "choices", "path": str(path), "questions": 5}


def write_study(path: Path, content: dict[str, Any]) -> Path:
    """A study as a YAML file."""
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True, scope="session")
def threads() -> None:
    """One, unless `make test-isa` says otherwise: tiny models are fastest on one thread."""
    import torch

    torch.set_num_threads(int(os.environ.get("TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def undisturbed(
    tiny_model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """The tiny study, run once from start to end by the process that needs it first."""
    finished = shared / "finished"
    with FileLock(f"{finished}.lock"):
        if not finished.exists():
            making = tmp_path_factory.mktemp("making")
            study = write_study(making / "tiny.yaml", study_content(tiny_model))
            done = run("run", str(study), "--store", str(making / "store"))
            assert done.process.returncode == 0, done.text
            (making / "output.txt").write_text(done.text)
            making.rename(finished)
    own = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(finished / "store", own, symlinks=True)
    output = (finished / "output.txt").read_text()
    return Undisturbed(finished / "tiny.yaml", own, output, own / "studies/tiny")
