"""Commands that load a model: ask it a question, read its weights, or unlearn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import StoreOption, StudyArgument, console
from distforget.errors import UsageError
from distforget.loading import load_study


def ask(
    study: StudyArgument,
    cell: Annotated[
        str, typer.Argument(help="Name of a finished cell, as in column `cell` of table `cells`.")
    ],
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    store: StoreOption = "results",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask a finished cell any question: answers before fine-tuning, before and after unlearning.

    A cell with LoRA adapters is loaded; one of whole weights is unlearned again first.

    Example: `distforget ask demo smollm2/4/NPO_GDN/1/0 "When was Ada born?"`
    """
    import pyarrow as pa

    from distforget.engine.ask import ask as answers
    from distforget.plan import make_plan
    from distforget.remote import open_store

    named = load_study(study)
    if named.track != "text":
        raise UsageError(f"study {named.name} is of images, which cannot be asked in words")
    table = Table("phase", "answer")
    asked = pa.table({"question": [text]})
    for phase, answer in answers(make_plan(named), cell, asked, open_store(store), device):
        table.add_row(phase, escape(answer))
    console.print(table)


def reproduce(
    study: StudyArgument,
    cell: Annotated[
        str, typer.Argument(help="Name of a finished cell, as in column `cell` of table `cells`.")
    ],
    store: StoreOption = "results",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far numbers may be apart, times max(1, their size).")
    ] = 1e-6,
    rows: Annotated[int, typer.Option(min=1, help="Differing values to print.")] = 20,
) -> None:
    """Run a finished cell again in an empty store and compare the results.

    Starts from the stored data, weights and reference (nothing is fine-tuned again), compares all
    that the cell left, row by row, and prints both numbers of what differs, and versions and
    devices of both. Equal or within the tolerance: exit code 0; different: 1. Writes nothing.

    Example: `distforget reproduce demo smollm2/4/NPO_GDN/1/0`
    """
    from distforget.analysis.reproduction import compare_values, worst
    from distforget.engine.reproduce import reproduce as run_again
    from distforget.plan import make_plan
    from distforget.remote import open_store
    from distforget.report.again import print_facts, print_reproduction

    stored, new = run_again(make_plan(load_study(study)), cell, open_store(store), device)
    values = compare_values(stored.tables, new.tables, tolerance)
    word = worst(values)
    print_facts(stored.facts, new.facts, console)
    print_reproduction(cell, values, word, tolerance, rows, console)
    if word == "different":
        raise typer.Exit(1)


def reconstruct(
    model: Annotated[
        Path,
        typer.Argument(
            help="State dict (.pt, .pth, .safetensors) of linear layers with ReLU between them, or "
            "a folder with model.safetensors and config.json."
        ),
    ],
    samples: Annotated[int, typer.Option(min=1, help="Training samples, as far as known.")] = 100,
    mean: Annotated[
        str,
        typer.Option(
            help="What was subtracted from pixels between 0 and 1: a number (or one per channel, "
            "separated by commas), an image, a .npz file with `mean` (or `images`, whose mean is "
            "taken), or a study's samples.parquet. With a wrong mean most pictures are lost; with "
            "an inexact one the kinks are."
        ),
    ] = "0",
    std: Annotated[
        str, typer.Option(help="What the pixels were then divided by, in the same forms.")
    ] = "1",
    shape: Annotated[
        str,
        typer.Option(help="Image size: channels,height,width; empty for grey or colour squares."),
    ] = "",
    check: Annotated[
        Path | None,
        typer.Option(
            help="Samples of yours to test for membership: a folder with one sub-folder per class, "
            "a .npz file of images and labels, or a study's samples.parquet."
        ),
    ] = None,
    never: Annotated[
        Path | None,
        typer.Option(help="Samples that were certainly never trained on, for p-values."),
    ] = None,
    optimizer: Annotated[
        Path | None,
        typer.Option(
            help="State dict of the Adam or AdamW that trained the model. Its first moment is the "
            "gradient, whose equations hold at any step and not only at the end of training."
        ),
    ] = None,
    weight_decay: Annotated[
        float,
        typer.Option(
            min=1e-12, help="Weight decay of the training; scales kkt_multiplier in --check."
        ),
    ] = 1e-4,
    to: Annotated[Path, typer.Option(help="Picture to write; .npz and .csv go beside it.")] = Path(
        "reconstructed.png"
    ),
    starts: Annotated[
        int, typer.Option(min=2, help="Number of attacks, to see whether they agree.")
    ] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each attack.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random starts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Read training images out of a classifier's weights, and test samples that you hold.

    Says in words what came out, beside what the same attack makes of fresh weights. On the picture
    stand under each image its class, its multiplier (of the largest) and how well it agrees with
    another start. `--check` needs no reading: kinks, span and loss tell members one by one.

    Examples: `distforget reconstruct net.pt --samples 500 --mean 0.1307 --std 0.3081`,
    `distforget reconstruct net.pt --check mine/ --never others/`
    """
    import torch

    from distforget.image_config import ReconstructionConfig
    from distforget.imaging.models import MLP
    from distforget.imaging.reconstruction import Inputs
    from distforget.report.audit import print_checked, words, write_checked, write_read_out
    from distforget.tracks.image import audit, foreign, held

    opened = foreign.open_classifier(model, foreign.parse_shape(shape))
    for note in opened.notes:
        console.print(note)
    module = opened.model.to(device)
    size = module.config.image_shape
    inputs = Inputs(
        *(held.read_statistic(v, size, o).to(device) for v, o in ((mean, "--mean"), (std, "--std")))
    )
    left = None
    if optimizer is not None:
        if not isinstance(module, MLP):
            raise UsageError("--optimizer: of linear layers alone, the model has convolutions")
        left = foreign.gradient_of(optimizer, module)
    asked = None
    if check is not None:
        parts = [held.read_held(check)]
        parts += [] if never is None else [held.read_held(never, held.NEVER)]
        asked = held.joined(*parts)
        held.check_fits(asked, module.config, check)
    elif never is not None:
        raise UsageError("--never: only beside --check, whose samples it is compared with")
    config = ReconstructionConfig(steps=steps)
    with torch.random.fork_rng(), console.status("") as status:
        out = audit.read_out(module, samples, config, inputs, seed, starts, left, status.update)
    for said in words(out):
        console.print(said)
    written = write_read_out(out, to)
    if asked is not None:
        checked = audit.check(module, asked, inputs, samples, weight_decay, out.found, left)
        print_checked(checked, held.NEVER, console)
        written.append(write_checked(checked, to))
    console.print(f"written: {', '.join(map(str, written))}")
