"""Commands that load a model: to ask it, in words or by its weights, or to unlearn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from distforget.cli.common import StoreOption, StudyArgument, console
from distforget.study import UsageError, load_study


def ask(
    study: StudyArgument,
    cell: Annotated[str, typer.Argument(help="A done cell, as in column `cell` of table `cells`.")],
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    store: StoreOption = Path("results"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Ask a cell anything: the answers before fine-tuning, before and after unlearning.

    A cell with LoRA adapters is loaded; one of whole weights is unlearned again first.

    Example: `distforget ask demo smollm2/3/NPO_GDN/1/0 "When was Ada born?"`
    """
    import pyarrow as pa

    from distforget.engine.ask import ask as answers
    from distforget.plan import make_plan
    from distforget.store import Store

    named = load_study(study)
    if named.track != "text":
        raise UsageError(f"study {named.name} is of images, which cannot be asked in words")
    table = Table("phase", "answer")
    asked = pa.table({"question": [text]})
    for phase, answer in answers(make_plan(named), cell, asked, Store(store), device):
        table.add_row(phase, escape(answer))
    console.print(table)


def reproduce(
    study: StudyArgument,
    cell: Annotated[str, typer.Argument(help="A done cell, as in column `cell` of table `cells`.")],
    store: StoreOption = Path("results"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far numbers may be apart, times max(1, their size).")
    ] = 1e-6,
    rows: Annotated[int, typer.Option(min=1, help="Differing values to print.")] = 20,
) -> None:
    """Run a done cell again in a clean place and say whether it comes out as it is stored.

    Starts from the stored data, weights and reference (nothing is fine-tuned again), compares all
    that the cell left, row by row, and prints both numbers of what differs, and versions and
    devices of both. Equal or within the tolerance: exit code 0; different: 1. Writes nothing.

    Example: `distforget reproduce demo smollm2/3/NPO_GDN/1/0`
    """
    from distforget.analysis.reproduction import compare_values, worst
    from distforget.engine.reproduce import reproduce as run_again
    from distforget.plan import make_plan
    from distforget.report.again import print_facts, print_reproduction
    from distforget.store import Store

    stored, new = run_again(make_plan(load_study(study)), cell, Store(store), device)
    values = compare_values(stored.tables, new.tables, tolerance)
    word = worst(values)
    print_facts(stored.facts, new.facts, console)
    print_reproduction(cell, values, word, tolerance, rows, console)
    if word == "different":
        raise typer.Exit(1)


def reconstruct(
    model: Annotated[Path, typer.Argument(help="Folder with model.safetensors and config.json.")],
    samples: Annotated[int, typer.Option(min=1, help="Training samples, as far as known.")] = 100,
    to: Annotated[Path, typer.Option(help="Picture to write.")] = Path("reconstructed.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of the attack's random start.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Read training images out of your own classifier's weights: no data is needed.

    config.json looks like {"kind": "mlp", "hidden": [256, 256], "image_shape": [1, 28, 28],
    "classes": 10, "bias": "first"}; the weights are named layers.0.weight, layers.0.bias, ...
    The pictures are sorted by multiplier, the largest first.

    Example: `distforget reconstruct my-model --samples 100 --to found.png`
    """
    from distforget.image_config import ImageConfig
    from distforget.report.pictures import write_candidates
    from distforget.tracks.image.attack import attack
    from distforget.tracks.image.models import load

    found = attack(load(model).to(device), samples, ImageConfig(), seed)
    write_candidates(found.largest(100), to)
    console.print(f"relative residual of the equations {found.residual:.3f}; picture: {to}")
