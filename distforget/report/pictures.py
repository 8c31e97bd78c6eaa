"""Pictures of originals beside reconstructions, before and after unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distforget.analysis.states import unattacked
from distforget.report.figure_style import write

Pixels = npt.NDArray[np.uint8]


def pixels_of(row: Mapping[Any, Any]) -> Pixels:
    """[H, W, C] bytes of a row of `samples` or `reconstructions`."""
    shape = (int(row["height"]), int(row["width"]), int(row["channels"]))
    return np.frombuffer(row["pixels"], np.uint8).reshape(shape)


def show_pixels(axes: Axes, pixels_HWC: Pixels) -> None:
    """Draw one image, grey or in colour, black being 0."""
    axes.imshow(pixels_HWC, cmap="gray", vmin=0, vmax=255)


def before_and_after(
    samples: pa.Table, reconstructions: pa.Table, model: str, seed: int = 0
) -> Figure:
    """Originals, and reconstructions before (V_b) and after (V_u) unlearning (SPEC section 5).

    There is a row for each target and dose.

    Under each reconstruction stand its SSIM with the original, what never-trained images of the
    class reach (null), and the chance of as much for one of them (p).
    """
    pictures = reconstructions.to_pandas()
    pictures = pictures[(pictures["model"] == model) & (pictures["role"] == "target")]
    pictures = pictures[pictures["seed"].eq(seed)]
    originals = samples.to_pandas().query("role == 'target'").set_index("target_index")
    after = pictures[pictures["phase"] == "post_unlearn"]
    after = after[after["target_index"] == after["unlearned"]]
    before = pictures[pictures["phase"] == "pre_unlearn"].set_index(["target_index", "dose"])
    columns = list(after.groupby(["method", "variant"], sort=False).groups)
    rows = sorted(after[["target_index", "dose"]].drop_duplicates().itertuples(index=False))
    figure = Figure(figsize=(1.1 * (2 + len(columns)), 1.25 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2 + len(columns), squeeze=False)
    found = after.set_index(["target_index", "dose", "method", "variant"])
    for number, (target, dose) in enumerate(rows):
        shown = [originals.loc[target].to_dict(), before.loc[(target, dose)].to_dict()]
        for column in columns:
            key = (target, dose, *column)
            shown.append(found.loc[key].to_dict() if key in found.index else {})
        for axis, row in zip(axes[number], shown, strict=True):
            _show(axis, row)
        axes[number, 0].set_ylabel(f"target {target:.0f}\ndose {dose:.0f}", fontsize=7)
    titles = ["original", "before (V_b)", *(_title(*column) for column in columns)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    return figure


def write_pictures(samples: pa.Table, reconstructions: pa.Table, folder: Path) -> list[Path]:
    """Write `pictures-MODEL-SEED.png` of each model and repetition that is done so far.

    They show model states that were not attacked.
    """
    reconstructions = unattacked(reconstructions)
    done = reconstructions.filter(pc.equal(reconstructions["phase"], "post_unlearn"))
    states = sorted(set(zip(done["model"].to_pylist(), done["seed"].to_pylist(), strict=True)))
    return [
        path
        for model, seed in states
        for path in write(
            before_and_after(samples, reconstructions, model, seed),
            folder / f"pictures-{model}-{seed}",
            ["png"],
        )
    ]


def grid(images_NHWC: Pixels, captions: Sequence[str], columns: int = 10) -> Figure:
    """Draw images in rows, each with its caption."""
    lines = -(-len(images_NHWC) // columns)
    figure = Figure(figsize=(0.8 * columns, 0.95 * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, image_HWC, caption in zip(axes, images_NHWC, captions, strict=False):
        show_pixels(axis, image_HWC)
        axis.set_title(caption, fontsize=5, y=-0.22)
    return figure


def _title(method: str, variant: str) -> str:
    return method if variant == "plain" else f"{method}\n{variant}"


def _show(axis: Axes, row: Mapping[str, Any]) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if not row:
        axis.set_xlabel("not done", fontsize=7)
        return
    show_pixels(axis, pixels_of(row))
    if "ssim" in row:
        null = "" if row["ssim_null"] != row["ssim_null"] else f", null {row['ssim_null']:.2f}"
        axis.set_xlabel(f"SSIM {row['ssim']:.2f}{null}\np {row['p_value']:.2g}", fontsize=6)
