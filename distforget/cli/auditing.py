"""Commands about models that somebody else trained or unlearned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distforget.cli.common import console, placed
from distforget.cli.running import run_study
from distforget.placement import Placement


@placed("store", "address", "device")
def verify(
    before: Annotated[
        str, typer.Option(help="Model before unlearning: folder, hub id, or LoRA adapter.")
    ],
    after: Annotated[str, typer.Option(help="Model after unlearning, in any of these forms.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Questions and answers: the rows with role target are what was to be forgotten; "
            "similar, neighbour and other rows are used where there are any."
        ),
    ],
    base: Annotated[
        str, typer.Option(help="Model before fine-tuning: how much is known without the data.")
    ] = "",
    retrained: Annotated[
        str, typer.Option(help="Model that was trained without the targets: the reference.")
    ] = "",
    targets: Annotated[
        int, typer.Option(min=0, help="Only the first targets; 0: all that the data names.")
    ] = 0,
    name: Annotated[str, typer.Option(help="Name of the study that is written.")] = "verify",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    *,
    placement: Placement,
) -> None:
    """Verify a model that any tool unlearned: did it forget the targets, and what else?

    Nothing is trained. The models before fine-tuning, before and after unlearning answer the same
    questions. Verdicts and the page are those of a study, STORE/studies/NAME/study.yaml.

    Example: `distforget verify --before org/tuned --after org/unlearned --data pairs.jsonl`
    """
    from distforget.loading import write_study
    from distforget.verifying import study_of, unsaid

    study, found = study_of(
        data, before, after, base, retrained, targets=targets, name=name, dtype=dtype
    )
    path = placement.store / "studies" / study.name / "study.yaml"
    write_study(study, path)
    console.print(f"study: {path}, which report, query and ask take", soft_wrap=True)
    run_study(study, placement, full_page=False)
    for sentence in unsaid(study, found):
        console.print(sentence)
