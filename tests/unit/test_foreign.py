"""State dicts as people save them: order, names, BatchNorm, optimisers; and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distforget.errors import UsageError
from distforget.imaging.models import MLP, MLPConfig, build, save
from distforget.tracks.image import foreign
from tests.exact_points import exact_point


def network(*sizes: int, bias: bool = True, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(sum(sizes))
    layers: list[nn.Module] = [nn.Flatten()]
    for place, (inside, out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(inside, out, bias=bias))
        if place < len(sizes) - 2:
            layers += [nn.BatchNorm1d(out), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*layers).eval()


def opened(state: Any, path: Path, shape: tuple[int, int, int] | None = None) -> foreign.Foreign:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return foreign.open_classifier(path, shape)


def alike(found: foreign.Foreign, theirs: nn.Module) -> None:
    images = torch.rand(5, *found.model.config.image_shape)
    with torch.no_grad():
        torch.testing.assert_close(found.model(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_state_dict_computes_what_its_network_did(
    suffix: str, bias: bool, tmp_path: Path
) -> None:
    theirs = network(36, 12, 12, 12, 4, bias=bias)
    found = opened(theirs.state_dict(), tmp_path / f"net{suffix}")
    alike(found, theirs)
    assert found.model.config.bias == ("all" if bias else "none")
    assert found.model.config.image_shape == (1, 6, 6)


def test_layers_are_found_by_their_shapes_whatever_their_names(tmp_path: Path) -> None:
    theirs = network(36, 12, 8, 4)
    names = {"1": "zeta", "3": "body.10", "5": "answer"}
    renamed = {
        f"{names[name.split('.')[0]]}.{name.split('.')[1]}": tensor
        for name, tensor in theirs.state_dict().items()
    }
    found = opened(renamed, tmp_path / "net.safetensors")
    alike(found, theirs)
    assert found.notes == ("layers zeta -> body.10 -> answer",)


def test_ten_layers_are_not_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    theirs = network(16, *[9] * 11, 3)
    alike(opened(theirs.state_dict(), tmp_path / "net.safetensors", (1, 4, 4)), theirs)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_that_holds_more_is_looked_through(key: str, tmp_path: Path) -> None:
    theirs = network(36, 12, 4)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    content = {"epoch": 3, "optimizer": optimizer.state_dict(), key: theirs.state_dict()}
    alike(opened(content, tmp_path / "checkpoint.pth"), theirs)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_is_folded_in(suffix: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = network(36, 12, 8, 4, norm=True, bias=False)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    theirs = theirs.to(dtype)
    found = opened(theirs.state_dict(), tmp_path / f"net{suffix}")
    alike(found, theirs.float())
    assert "BatchNorm folded in (2, 5)" in found.notes[1]


def test_a_folder_of_ours_is_read(tmp_path: Path) -> None:
    config = MLPConfig(image_shape=(1, 6, 6), hidden=(5,), classes=3)
    ours = build(config, torch.Generator().manual_seed(0))
    save(ours, tmp_path)
    alike(foreign.open_classifier(tmp_path, None), ours)


class NotATensor:
    """Whose unpickling would run code."""


STATE = network(36, 12, 4).state_dict()


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        ({"model": NotATensor()}, None, "not unpickled, since that can run code"),
        ({"epoch": 3}, None, "holds no tensors by name"),
        ({"w": torch.zeros(4, 36)}, None, "1 linear layer"),
        ({**STATE, "1.weight": STATE["1.weight"] * torch.nan}, None, "1.weight holds NaN"),
        ({"c.weight": torch.zeros(4, 1, 3, 3), **STATE}, None, "c.weight is .4, 1, 3, 3.: conv"),
        ({**STATE, "n.weight": torch.ones(12)}, None, "n.weight is a vector that is neither"),
        ({"a.weight": torch.zeros(5, 36), "b.weight": torch.zeros(4, 6)}, None, "do not follow"),
        ({"a.weight": torch.zeros(5, 35), "b.weight": torch.zeros(4, 5)}, None, "35 values, no"),
        ({"a.weight": torch.zeros(5, 36), "b.weight": torch.zeros(1, 5)}, None, "has one output"),
        (STATE, (1, 5, 7), "takes 36 values, --shape has 35"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused(
    content: Any, shape: tuple[int, int, int] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        opened(content, tmp_path / "net.pt", shape)


@pytest.mark.parametrize("given", ["1,28", "a,b,c", "0,4,4"])
def test_a_shape_is_three_numbers(given: str) -> None:
    with pytest.raises(UsageError, match="channels,height,width"):
        foreign.parse_shape(given)


# Optimisers.


def fresh() -> MLP:
    config = MLPConfig(image_shape=(1, 1, 36), hidden=(7, 5), classes=2)
    model = build(config, torch.Generator().manual_seed(0))
    assert isinstance(model, MLP)
    return model.double()


@pytest.mark.parametrize(
    ("kind", "decay"),
    [(torch.optim.Adam, 0.0), (torch.optim.Adam, 0.01), (torch.optim.AdamW, 0.01)],
)
def test_the_first_moment_is_the_gradient(
    kind: type[torch.optim.Optimizer], decay: float, tmp_path: Path
) -> None:
    """At a learning rate of nearly 0, where the average of gradients is the gradient."""
    model, members = fresh(), exact_point().members
    optimizer = kind(model.parameters(), lr=1e-12, weight_decay=decay)  # type: ignore[call-arg]
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(members.images_NCHW), members.labels_N)
        torch.autograd.backward(loss)
        optimizer.step()
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "opt.pt")
    left = foreign.gradient_of(tmp_path / "opt.pt", model)
    for found, parameter in zip(left.parameters(), model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(found.detach(), -parameter.grad, rtol=1e-5, atol=1e-12)


def test_an_optimiser_without_moments_or_of_another_model_is_refused(tmp_path: Path) -> None:
    model, path = fresh(), tmp_path / "opt.pt"
    torch.save(torch.optim.SGD(model.parameters(), 0.1).state_dict(), path)
    with pytest.raises(UsageError, match="no first moments of Adam"):
        foreign.gradient_of(path, model)
    other = network(36, 12, 4)
    optimizer = torch.optim.Adam(other.parameters())
    other(torch.rand(2, 36)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), path)
    with pytest.raises(UsageError, match="belongs to another model"):
        foreign.gradient_of(path, model)
