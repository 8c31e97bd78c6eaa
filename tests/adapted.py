"""A tiny base model, adapters on it, and the same in peft's layers and in dense weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from distforget import selection
from distforget.models import PromptConfig
from distforget.study import AdapterConfig
from distforget.tracks.base import RetainBatches
from distforget.tracks.text.adapters import Adapters
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.contract.test_methods import SIMILAR, samples, study

ARCHITECTURES = ("llama", "gpt_neo", "opt")
CONFIG = AdapterConfig(rank=3, alpha=5.0)
SCALE = 5.0 / 3
SLOTS = 4


class Setting:
    """A tiny base model with larger weights than fresh ones, and the adapters that tests use."""

    def __init__(self, folder: Path, dtype: str) -> None:
        # GPT-Neo multiplies queries and keys in float32, whatever its weights are.
        self.tolerance = 1e-6 if folder.name == "gpt_neo" else 1e-11
        self.encoder = Encoder(load_tokenizer(folder), PromptConfig())
        self.base = load_model(folder, "float32", "cpu")
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weights in self.base.parameters():
                if weights.dim() > 1:
                    weights.normal_(0, 0.15, generator=draw)
        self.base.to(getattr(torch, dtype))
        self.learner = self.with_adapters(CONFIG)
        self.fresh = self.slots.weights(0)
        self.pool = [self.drawn(seed) for seed in range(SLOTS)]
        self.start = self.pool[0]
        self.slots.load([self.start])
        rows = selection.retain_rows(samples(), SIMILAR, 0, study())
        examples, batches = self.learner.encode(rows), selection.retain_batches(len(rows), 2)
        reference = self.learner.reference(examples, batches)
        self.retain = RetainBatches(examples, batches, reference)

    def with_adapters(self, config: AdapterConfig) -> TextLearner:
        model = copy.deepcopy(self.base)
        slots = Adapters(model, config, torch.Generator().manual_seed(2))
        return TextLearner(model, self.encoder, study().verify, slots)

    @property
    def slots(self) -> Adapters:
        assert self.learner.slots is not None
        return self.learner.slots

    def drawn(self, seed: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {
            name: torch.empty_like(w).normal_(0, 0.2, generator=draw)
            for name, w in self.fresh.items()
        }

    def peft(self, weights: Mapping[str, Tensor]) -> PeftModel:
        """The same model with one adapter, in peft's own layers."""
        lora = LoraConfig(
            r=CONFIG.rank, lora_alpha=5, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        found = get_peft_model(copy.deepcopy(self.base), lora).to(self.base.dtype)
        assert not set_peft_model_state_dict(found, dict(weights)).unexpected_keys
        return found

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Dense weights W + alpha/rank * B A of the base model."""
        found = {name: p.detach().clone() for name, p in self.base.named_parameters()}
        for name, w in weights.items():
            if name.endswith("lora_A.weight"):
                b = weights[name.replace("lora_A", "lora_B")]
                plain = name.removeprefix("base_model.model.").replace("lora_A.", "")
                found[plain] = found[plain] + SCALE * b @ w
        return found

    def dense(self, weights: Mapping[str, Tensor]) -> nn.Module:
        model = copy.deepcopy(self.base)
        model.load_state_dict(weights, strict=False)
        return model


IDS = torch.tensor([[5, 9, 40, 3], [7, 7, 100, 61], [1, 200, 2, 17]])


@torch.no_grad()
def logits_of(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    found: Tensor = model(input_ids=ids).logits
    return found


def trained(learner: TextLearner) -> dict[str, Tensor]:
    return {
        name.replace(".default", ""): p.detach()
        for name, p in learner.module.named_parameters()
        if p.requires_grad
    }


def assert_equal(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> None:
    assert set(found) == set(expected)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=tolerance, msg=name)
