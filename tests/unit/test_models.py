"""Loaded language models: what may be read, and that training mode changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distforget.errors import UsageError
from distforget.plan import make_plan
from distforget.study import Study
from distforget.tracks.text.models import load_model, load_tokenizer, materialise
from tests.conftest import make_tiny_model, study_content


def gradients(module: nn.Module) -> tuple[Tensor, list[Tensor]]:
    ids = torch.arange(2, 42).reshape(2, 20)
    module.zero_grad()
    logits = module(input_ids=ids, use_cache=False).logits
    logits.square().mean().backward()
    return logits.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_attention_never_takes_cudnn(tmp_path: Path) -> None:
    """Its backward pass returns NaN for some padded lengths (pytorch issue 196678)."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_model(make_tiny_model(tmp_path), "float32", "cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo", "opt"])
def test_gradient_checkpointing_changes_neither_logits_nor_gradients(
    architecture: str, tmp_path: Path
) -> None:
    module = load_model(make_tiny_model(tmp_path, architecture), "float32", "cpu")
    plain_logits, plain = gradients(module)
    module.gradient_checkpointing_enable()
    module.train()
    logits, checkpointed = gradients(module)
    torch.testing.assert_close(logits, plain_logits)
    assert len(plain) == len(checkpointed) > 0
    for expected, found in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(found, expected)


def pickled(folder: Path, extra: object = None) -> Path:
    """The folder with its weights as old models have them; `extra` is pickled with them."""
    weights = dict(load_file(folder / "model.safetensors"))
    torch.save({**weights, **({"extra": extra} if extra else {})}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_pickled_weights_are_converted_once(architecture: str, tmp_path: Path) -> None:
    """As facebook/opt-1.3b has them, one of the paper's models."""
    folder = make_tiny_model(tmp_path / "model", architecture)
    expected = load_model(folder, "float32", "cpu").state_dict()
    origin = {"folder": str(pickled(folder))}
    target = tmp_path / "converted"
    target.mkdir()
    assert materialise(origin, target) == target
    found = load_model(target, "float32", "cpu").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    question = "Where was the man born?"
    assert load_tokenizer(target)(question) == load_tokenizer(folder)(question)
    plan = make_plan(Study.model_validate(study_content(folder)))
    assert "pytorch_model.bin" in plan.models[0].config["files"]


class Code:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_needs_more_than_tensors_is_refused(tmp_path: Path) -> None:
    folder = pickled(make_tiny_model(tmp_path / "model"), Code(tmp_path / "ran"))
    target = tmp_path / "converted"
    target.mkdir()
    with pytest.raises(UsageError, match=r"cannot be read as tensors alone.*if you trust the file"):
        materialise({"folder": str(folder)}, target)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neo", "opt"])
def test_weights_that_are_missing_are_not_drawn_at_random(
    architecture: str, tmp_path: Path
) -> None:
    folder = make_tiny_model(tmp_path, architecture)
    weights = load_file(folder / "model.safetensors")
    gone = sorted(name for name in weights if "mlp" in name or "fc1" in name)[0]
    kept = {name: weight for name, weight in weights.items() if name != gone}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"1 weights are missing, e\.g\. .*(mlp|fc1)"):
        load_model(folder, "float32", "cpu")


def adapter(folder: Path, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A LoRA adapter of a tiny model, with weights that are not quite its own."""
    model = load_model(make_tiny_model(folder / "base"), "float32", "cpu")
    get_peft_model(model, LoraConfig(target_modules="all-linear")).save_pretrained(str(folder))
    file = folder / "adapter_model.safetensors"
    save_file(spoil(load_file(file)), file)
    return folder


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda weights: {f"other.{n}": w for n, w in weights.items()}, "weights have no place"),
        (lambda weights: dict(list(weights.items())[1:]), "1 weights have no place"),
        (lambda weights: {n: w[:, :1].contiguous() for n, w in weights.items()}, "size mismatch"),
    ],
    ids=["other names", "one is missing", "other sizes"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str, tmp_path: Path
) -> None:
    folder = adapter(tmp_path, spoil)
    with pytest.raises(UsageError, match=f"does not fit its base: .*{said}"):
        materialise({"folder": str(folder)}, tmp_path / "merged", tmp_path / "base")
