"""A tiny model of natural language inference, and what it says, by plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast


def write_judge(folder: Path, texts: Sequence[str]) -> Path:
    """A model with random weights that knows the words of these texts."""
    words = sorted({word.strip(".?").lower() for text in texts for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", *words]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, initializer_range=1.0,
        id2label={0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def chance_of(folder: Path) -> Callable[[str, str], float]:
    """Probability that the first text entails the second, one pair at a time."""
    model = BertForSequenceClassification.from_pretrained(folder)
    tokenizer = BertTokenizerFast.from_pretrained(folder)

    def chance(first: str, second: str) -> float:
        with torch.inference_mode():
            logits = model(**tokenizer(first, second, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, 2])

    return chance
