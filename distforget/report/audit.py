"""Reports what was read out of a classifier: text, pictures, .csv and .npz."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table

from distforget.analysis.evidence import shown
from distforget.analysis.intervals import combined
from distforget.analysis.separation import auc
from distforget.disk import write_at_once
from distforget.report.figure_style import formats, write
from distforget.report.pictures import grid

if TYPE_CHECKING:
    from distforget.tracks.image.audit import ReadOut

SHOWN = 100
"""Number of candidates on the picture, those with the largest multipliers."""


def words(out: ReadOut) -> list[str]:
    """Explains the result in sentences."""
    free = "" if out.found.residual_free is None else f" ({out.found.residual_free:.2f} with "
    free += "slopes at kinks free)" if free else ""
    numbers = f"residual {out.found.residual:.2f}{free}; of fresh weights {out.null_residual:.2f}"
    agreement, null = float(out.agreement_N.mean()), float(out.null_agreement_N.mean())
    alike = (
        f"Candidates of different starts agree (mean SSIM {agreement:.2f}; with those of fresh "
        f"weights {null:.2f}): the more one agrees, the more it is to be trusted."
    )
    what = "gradient" if out.of_gradient else "weights"
    if out.word == "read":
        return [
            f"{numbers}: the candidates explain the {what}, so most of them are close to training "
            "samples. A sharp picture almost certainly shows one; a blurred one may be a mixture.",
            alike,
        ]
    if out.word == "in part":
        return [
            f"{numbers}: the candidates explain the {what} in part. Some pictures may be of "
            "training samples, many are not.",
            alike,
        ]
    if out.of_gradient:
        return [
            f"{numbers}: the candidates do not explain the gradient. It comes from more samples "
            "than --samples says, from few batches, or from another model. Nothing can be read "
            "from it."
        ]
    return [
        f"{numbers}: these weights are not at a stationary point of cross-entropy with weight "
        "decay, or were trained on more samples than --samples says. Nothing can be read from "
        "them, and the pictures are what the attack makes of any weights. That does not clear the "
        "data: test samples that you hold with --check (kinks, loss and span), and give the "
        "optimiser's state, if you have it, with --optimizer."
    ]


def write_read_out(out: ReadOut, picture: Path) -> list[Path]:
    """Write the candidates: a picture, beside it .npz and .csv, the largest multiplier first.

    On the picture each is stretched to full contrast, under it its class, its multiplier as a share
    of the largest, and its agreement with other starts.

    Raises:
        UsageError: there is no such format, or a file cannot be written.
    """
    kinds = formats(picture.suffix.lstrip(".") or "png")
    order = out.found.multipliers.argsort(descending=True).cpu()
    images_NHWC = out.found.images_NCHW.detach().cpu()[order].permute(0, 2, 3, 1).numpy()
    table = pd.DataFrame(
        {
            "candidate": order.numpy(),
            "label": out.found.labels_N.cpu()[order].numpy(),
            "multiplier": out.found.multipliers.detach().cpu()[order].numpy(),
            "agreement": out.agreement_N[order].numpy(),
            "agreement_with_fresh_weights": out.null_agreement_N[order].numpy(),
        }
    )
    captions = [
        f"{row.label}  {row.multiplier / table['multiplier'].max():.2f}  {row.agreement:.2f}"
        for row in table.head(SHOWN).itertuples()
    ]
    stem = picture.with_suffix("")
    written = write(grid(stretched(images_NHWC[:SHOWN]), captions), stem, kinds)
    packed = io.BytesIO()
    columns: dict[str, Any] = {name: table[name].to_numpy() for name in table.columns}
    np.savez_compressed(packed, images=images_NHWC, **columns)
    contents = {".npz": packed.getvalue(), ".csv": table.to_csv(index=False).encode()}
    for suffix, content in contents.items():
        write_at_once(stem.with_suffix(suffix), content)
    return [*written, *map(stem.with_suffix, contents)]


def stretched(images_NHWC: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Images as bytes, stretched so that the least value is black and the greatest white."""
    axes = (1, 2, 3)
    low, high = images_NHWC.min(axes, keepdims=True), images_NHWC.max(axes, keepdims=True)
    share = (images_NHWC - low) / np.maximum(high - low, 1e-12)
    found: npt.NDArray[np.uint8] = (share * 255).round().astype(np.uint8)
    return found


def print_checked(checked: pd.DataFrame, never: str, console: Console) -> None:
    """One line per group of samples: means, p-values combined, and how well each score tells them.

    Args:
        never: the group of nulls.
    """
    metrics = [n for n in METRICS if n in checked]
    table = Table(
        title="samples that you hold",
        caption="Means. AUC in brackets: the probability that a sample of the group scores above "
        f"one that was {never} (0.5 is no evidence). p: the probability of such a score for one of "
        "those, over all samples. A sample with many kinks was almost certainly trained on; one "
        "without kinks may have been. kkt_multiplier: 1 if the sample is part of the solution, 0 "
        "if not; it assumes that the checked samples are the training data.",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("group", "n", *metrics):
        table.add_column(name, justify="left" if name == "group" else "right")
    nulls = checked[checked["group"] == never]
    for group, rows in checked.groupby("group", sort=False):
        cells = []
        for metric in metrics:
            values = rows[metric].to_numpy(np.float64)
            if metric.endswith("p_value"):
                cells.append("" if group == never else shown(metric, combined(values)))
                continue
            sign = -1 if metric == "loss" else 1
            apart = (
                ""
                if group == never or nulls.empty
                else (f" ({auc(sign * values, sign * nulls[metric].to_numpy(np.float64)):.3f})")
            )
            cells.append(f"{values.mean():.2f}{apart}")
        table.add_row(str(group), str(len(rows)), *cells)
    console.print(table)
    if "ssim" in checked:
        counts = checked.assign(read=checked["ssim"] > RECOGNISED).groupby("group", sort=False)
        said = (f"{int(g['read'].sum())} of {len(g)} {name}" for name, g in counts)
        console.print(f"best match of a candidate with SSIM above {RECOGNISED}: {', '.join(said)}")


def write_checked(checked: pd.DataFrame, picture: Path) -> Path:
    """Write one row per sample beside the picture; its path.

    Raises:
        UsageError: it cannot be written.
    """
    place = picture.with_name(f"{picture.stem}-checked.csv")
    write_at_once(place, checked.to_csv(index=False).encode())
    return place


METRICS = (
    "kinks", "kink_p_value", "kkt_multiplier", "span_score", "loss", "loss_p_value", "ssim",
    "ssim_p_value",
)  # fmt: skip
RECOGNISED = 0.4
"""SSIM from which on a reconstruction counts as recognised in the literature (Buzaglo et al. 2023,
"Deconstructing Data Reconstruction")."""
