"""`distforget reconstruct`: what it says, writes and asks, and the files that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.io import imread, imsave
from torch import Tensor
from typer.testing import CliRunner

from distforget import cli
from distforget.analysis.separation import auc
from distforget.errors import UsageError
from distforget.image_config import FitConfig, ReconstructionConfig
from distforget.imaging.fitting import Labelled, fit
from distforget.imaging.models import CNNConfig, MLPConfig, build, save
from distforget.imaging.reconstruction import Inputs, Reconstruction
from distforget.imaging.ssim import best_matches
from distforget.report.audit import stretched, words
from distforget.tracks.image import audit, held
from tests.trained_strokes import MEAN, MEMBERS, WEIGHT_DECAY, trained_on_strokes

SHAPE = (1, 16, 16)


def pixels(images_NCHW: Tensor) -> np.ndarray:
    return ((images_NCHW + MEAN).clamp(0, 1) * 255).round().byte().numpy()


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["reconstruct", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network as a state dict, its mean, what it was trained on, and what not."""
    folder = tmp_path_factory.mktemp("audit")
    one = trained_on_strokes()[1]
    torch.save({"model": one.model.state_dict()}, folder / "net.pt")
    np.savez(folder / "mean.npz", mean=MEAN.numpy())
    for name, part in (("members", one.members), ("strangers", one.strangers)):
        np.savez(
            folder / f"{name}.npz", images=pixels(part.images_NCHW), labels=part.labels_N.numpy()
        )
    return folder


def test_a_trained_network_is_read_and_its_samples_are_told(files: Path, tmp_path: Path) -> None:
    said = invoke(
        files / "net.pt", "--samples", MEMBERS, "--mean", files / "mean.npz",
        "--check", files / "members.npz", "--never", files / "strangers.npz",
        "--weight-decay", WEIGHT_DECAY, "--to", tmp_path / "found.png",
    )  # fmt: skip
    assert "the candidates explain the weights" in said
    assert imread(tmp_path / "found.png").std() > 0
    table = pd.read_csv(tmp_path / "found.csv")
    assert len(table) == 2 * MEMBERS
    assert table["multiplier"].is_monotonic_decreasing
    with np.load(tmp_path / "found.npz") as arrays:
        assert arrays["images"].shape == (2 * MEMBERS, 16, 16, 1)
        np.testing.assert_array_equal(arrays["label"], table["label"])
    checked = pd.read_csv(tmp_path / "found-checked.csv")
    assert checked["group"].value_counts().to_dict() == {"checked": MEMBERS, held.NEVER: 32}
    of_members = checked["group"] == "checked"
    for metric in ("kinks", "kkt_multiplier", "ssim"):
        medians = checked.groupby(of_members)[metric].median()
        assert medians[True] > medians[False]
    assert {"kink_p_value", "loss_p_value", "ssim_p_value"} <= set(checked.columns)


def test_fresh_weights_are_said_to_hold_nothing(files: Path, tmp_path: Path) -> None:
    config = MLPConfig(image_shape=SHAPE, hidden=(64, 64), classes=4)
    save(build(config, torch.Generator().manual_seed(9)), tmp_path / "fresh")
    said = invoke(
        tmp_path / "fresh", "--samples", MEMBERS, "--check", files / "members.npz",
        "--to", tmp_path / "found.png", "--steps", "300",
    )  # fmt: skip
    assert "Nothing can be read from them" in said
    assert "--check" in said
    assert "p_value" not in pd.read_csv(tmp_path / "found-checked.csv").columns


def test_a_cnn_is_attacked_and_its_samples_have_loss_and_multiplier(
    files: Path, tmp_path: Path
) -> None:
    config = CNNConfig(image_shape=SHAPE, classes=4, channels=(4,))
    save(build(config, torch.Generator().manual_seed(0)), tmp_path / "cnn")
    invoke(
        tmp_path / "cnn", "--samples", "3", "--steps", "20", "--check", files / "members.npz",
        "--never", files / "strangers.npz", "--to", tmp_path / "found.png",
    )  # fmt: skip
    checked = pd.read_csv(tmp_path / "found-checked.csv")
    assert {"loss", "loss_p_value", "kkt_multiplier"} <= set(checked.columns)
    assert "kinks" not in checked.columns


def outcome(residual: float, null: float, of_gradient: bool = False) -> audit.ReadOut:
    found = Reconstruction(torch.zeros(2, *SHAPE), torch.ones(2), torch.zeros(2).long(), residual)
    half = torch.full((2,), 0.5)
    return audit.ReadOut(found, half, of_gradient, null, half)


@pytest.mark.parametrize(
    ("residual", "null", "word", "said"),
    [
        (0.1, 0.97, "read", "close to training samples"),
        (0.1, 2.9, "read", "close to training samples"),
        (0.6, 2.9, "in part", "in part"),
        (0.94, 0.97, "nothing", "Nothing can be read from them"),
        (1.5, 2.9, "nothing", "Nothing can be read from them"),
    ],
)
def test_words_follow_the_residual(residual: float, null: float, word: str, said: str) -> None:
    out = outcome(residual, null)
    assert out.word == word
    assert said in " ".join(words(out))
    assert "gradient" in " ".join(words(outcome(residual, null, of_gradient=True)))


def test_fresh_weights_have_the_norms_of_the_models() -> None:
    model = trained_on_strokes()[0].model
    fresh = audit.fresh_like(model, 3)
    for new, old in zip(fresh.parameters(), model.parameters(), strict=True):
        assert float(new.detach().norm()) == pytest.approx(float(old.detach().norm()), rel=1e-4)
        assert not torch.equal(new, old)


def test_pictures_are_stretched_to_full_contrast() -> None:
    images = np.stack([np.linspace(-3, 5, 16), np.linspace(0.4, 0.5, 16), np.full(16, 2.0)])
    found = stretched(images.reshape(3, 4, 4, 1).astype(np.float32))
    assert found.min((1, 2, 3)).tolist() == [0, 0, 0]
    assert found.max((1, 2, 3)).tolist() == [255, 255, 0]


def test_a_network_whose_inputs_were_divided_is_read_too() -> None:
    std = 0.3
    one = trained_on_strokes()[1]
    divided = Labelled(one.members.images_NCHW / std, one.members.labels_N)
    model = build(one.model.config, torch.Generator().manual_seed(1))
    fit(model, divided, FitConfig(steps=2000, weight_decay=WEIGHT_DECAY))
    inputs = Inputs(MEAN, torch.full(SHAPE, std))
    found = audit.read_out(
        model, MEMBERS, ReconstructionConfig(), inputs
    ).found.images_NCHW.double()
    inside, outside = (
        best_matches(found, part.images_NCHW + MEAN, MEAN).ssim_M.numpy()
        for part in (one.members, one.strangers)
    )
    assert auc(inside, outside) > 0.8


def test_a_gradient_is_read_where_the_weights_are_not(tmp_path: Path) -> None:
    """Few steps at a constant rate: far from stationary, yet Adam's moment is the gradient."""
    one = trained_on_strokes()[1]
    model = build(one.model.config, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        logits_NK = model(one.members.images_NCHW)
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits_NK, one.members.labels_N))
        optimizer.step()
    path = tmp_path / "checkpoint.pt"
    torch.save({"net": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    np.savez(tmp_path / "mean.npz", mean=MEAN.numpy())
    given = (path, "--samples", MEMBERS, "--mean", tmp_path / "mean.npz")
    found = {}
    for name, more in (("weights", ()), ("gradient", ("--optimizer", path))):
        said = invoke(*given, *more, "--to", tmp_path / f"{name}.png")
        with np.load(tmp_path / f"{name}.npz") as arrays:
            images_NCHW = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).double()
        inside, outside = (
            best_matches(images_NCHW, part.images_NCHW + MEAN, MEAN).ssim_M.numpy()
            for part in (one.members, one.strangers)
        )
        found[name] = (auc(inside, outside), said)
    assert "Nothing can be read from them" in found["weights"][1]
    assert "the candidates explain the gradient" in found["gradient"][1]
    assert found["gradient"][0] > 0.9


# Files that people have.


def test_means_and_deviations_in_each_form(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (9, 16, 16), dtype=torch.uint8).numpy()
    np.savez(tmp_path / "all.npz", images=images)
    np.savez(tmp_path / "mean.npz", mean=images[0] / 255)
    imsave(tmp_path / "mean.png", images[0], check_contrast=False)

    def read(given: object, option: str = "--mean") -> Tensor:
        return held.read_statistic(str(given), SHAPE, option)

    assert torch.equal(read("0.25"), torch.full(SHAPE, 0.25))
    exact = torch.from_numpy(images[0] / 255)[None].float()
    torch.testing.assert_close(read(tmp_path / "mean.npz"), exact)
    torch.testing.assert_close(read(tmp_path / "mean.png"), exact)
    mean = torch.from_numpy((images / 255).mean(0))[None].float()
    torch.testing.assert_close(read(tmp_path / "all.npz"), mean)
    deviation = read(tmp_path / "all.npz", "--std")
    assert float(deviation[0, 0, 0]) == pytest.approx((images / 255).std(), rel=1e-3)
    colour = held.read_statistic("0.1,0.2,0.3", (3, 2, 2), "--mean")
    assert colour[:, 1, 1].tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("given", "option", "message"),
    [
        ("no.npz", "--mean", "neither a number nor a file"),
        ("1,2", "--mean", "images have"),
        ("0", "--std", "must be positive"),
    ],
)
def test_a_mean_that_is_none_is_refused(given: str, option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        held.read_statistic(given, SHAPE, option)


def test_a_folder_of_some_classes_keeps_their_numbers(tmp_path: Path) -> None:
    for label in ("3", "7"):
        (tmp_path / label).mkdir()
        imsave(tmp_path / label / "a.png", np.eye(16, dtype=np.uint8) * 200, check_contrast=False)
    found = held.read_held(tmp_path)
    assert found.labels_N.tolist() == [3, 7]
    assert found.names == ["3/a.png", "7/a.png"]
    assert found.images_NCHW.shape == (2, 1, 16, 16)
    with pytest.raises(UsageError, match="has a class 7, the model has 0 to 3"):
        held.check_fits(found, MLPConfig(image_shape=SHAPE, classes=4), tmp_path)


def test_never_without_check_is_refused(files: Path) -> None:
    arguments = ["reconstruct", str(files / "net.pt"), "--never", str(files / "members.npz")]
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, UsageError)
    assert "only beside --check" in str(result.exception)


def test_a_folder_without_a_classifier_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["reconstruct", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "config.json" in str(result.exception)
