"""Classifiers, and what is said of files that do not fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from distforget.errors import UsageError
from distforget.imaging.models import (
    CNNConfig,
    MLPConfig,
    build,
    load,
    load_weights,
    save,
)

MLP_CONFIG = MLPConfig(image_shape=(1, 4, 4), hidden=(5, 6), classes=3, bias="first")
CNN_CONFIG = CNNConfig(image_shape=(3, 9, 8), channels=(4, 5), classes=3, bias="all")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [("first", 16 * 5 + 5 + 30 + 18), ("all", 80 + 5 + 30 + 6 + 18 + 3), ("none", 80 + 30 + 18)],
)
def test_bias_is_where_it_is_asked_for(bias: Any, expected: int) -> None:
    model = build(MLP_CONFIG.model_copy(update={"bias": bias}), generator())
    assert sum(p.numel() for p in model.parameters()) == expected


def test_an_mlp_is_products_and_relu() -> None:
    model = build(MLP_CONFIG, generator())
    images = torch.randn(2, 1, 4, 4, generator=generator())
    w1, b1, w2, w3 = model.parameters()
    hidden = (images.flatten(1) @ w1.T + b1).clamp(min=0)
    expected = (hidden @ w2.T).clamp(min=0) @ w3.T
    torch.testing.assert_close(model(images), expected)


def test_fresh_weights_are_within_their_bound_and_repeat() -> None:
    first, second = (build(MLP_CONFIG, generator()).layers[0].weight for _ in range(2))
    assert torch.equal(first, second)
    assert 0.2 < first.abs().max() <= 0.25  # 1/sqrt(16)


@pytest.mark.parametrize("config", [MLP_CONFIG, CNN_CONFIG])
def test_what_is_saved_is_loaded(config: MLPConfig | CNNConfig, tmp_path: Path) -> None:
    model = build(config, generator()).double()
    save(model, tmp_path / "new" / "model")
    again = load(tmp_path / "new" / "model")
    images = torch.randn(2, *config.image_shape, generator=generator(), dtype=torch.float64)
    assert again.config == config
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.1.weight": torch.zeros(6, 7)}, r"layers.1.weight is \(6, 7\).*ask for \(6, 5\)"),
        ({"layers.1.bias": torch.zeros(6)}, "'layers.1.bias' belongs to no layer.*config.json"),
        ({"layers.0.bias": None}, "has no tensor 'layers.0.bias'.*correct the layers"),
        ({"layers.2.weight": torch.full((3, 6), torch.nan)}, "18 of 18.*NaN.*lower learning rate"),
        ({"layers.2.weight": torch.zeros(3, 6, dtype=torch.int32)}, "int32; save it as"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    weights = {**build(MLP_CONFIG, generator()).state_dict(), **change}
    path = tmp_path / "weights.safetensors"
    save_file({name: t for name, t in weights.items() if t is not None}, path)
    with pytest.raises(UsageError, match=f"weights.safetensors: .*{message}"):
        load_weights(path, MLP_CONFIG)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"layers.0.weight": torch.zeros(5, 16)}, path)
    with pytest.raises(UsageError, match=r"model.pt: cannot be read as safetensors .*save_file"):
        load_weights(path, MLP_CONFIG)
    with pytest.raises(UsageError, match=r"none.safetensors: cannot be read"):
        load_weights(tmp_path / "none.safetensors", MLP_CONFIG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "config.json: content: .*write it like"),
        (json.dumps({"kind": "mlp", "hidden": [0]}), "mlp.hidden.0: .*greater than or equal to 1"),
        (json.dumps({"kind": "tree"}), "config.json: content: .*'mlp', 'cnn'"),
        (None, "config.json: No such file.*model.safetensors and config.json"),
    ],
)
def test_a_wrong_config_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    save(build(MLP_CONFIG, generator()), tmp_path)
    if content is None:
        (tmp_path / "config.json").unlink()
    else:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)
