"""Commands about models that somebody else trained or unlearned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distforget.cli.common import checked_name, console, placed
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


@placed("store", "address", "device", "cpus")
def similar(
    forget: Annotated[
        str,
        typer.Option(
            help="What is to be forgotten: questions and answers in a file, the rows with role "
            "target, or all rows if there is no column role."
        ),
    ],
    train_data: Annotated[
        str,
        typer.Option(
            help="What the model was trained on: a file, a folder of shards, or a hub id. Formats "
            "as for studies: JSON Lines, JSON, CSV, Parquet, Arrow, chats."
        ),
    ],
    embedder: Annotated[
        str,
        typer.Option(
            help="Model of sentence-transformers: builtin:minilm (English), a folder, or a hub id, "
            "e.g. intfloat/multilingual-e5-small for other languages."
        ),
    ] = "builtin:minilm",
    dtype: Annotated[
        str, typer.Option(help="Of the embedder: float32, or bfloat16, about twice as fast.")
    ] = "float32",
    question: Annotated[str, typer.Option(help="Column of the question.")] = "question",
    answer: Annotated[str, typer.Option(help="Column of the answer.")] = "answer",
    by_chance: Annotated[
        float,
        typer.Option(
            min=1e-9, help="Rows of each request that chance may make similar; sets the cut."
        ),
    ] = 0.5,
    cut: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Cosine from which rows are similar; 0: from the data."
        ),
    ] = 0.0,
    most: Annotated[int, typer.Option(min=1, help="At most so many rows of each request.")] = 100,
    name: Annotated[str, typer.Option(help="Name of the folder of results.")] = "similar",
    *,
    placement: Placement,
) -> None:
    """Find samples in training data that are similar to those that are to be forgotten.

    By meaning (cosine of sentence embeddings) and by wording (shared n-grams), exactly and over all
    rows. Embeddings are kept: a second forget list costs seconds, and a run that was killed goes on
    where it was. Writes STORE/similar/NAME: the table `similar`, a figure, and pairs.jsonl, which
    a study takes as its data.

    Example: `distforget similar --forget requests.jsonl --train-data train.parquet`
    """
    from distforget.engine.similar import Wish, find
    from distforget.finding.embedders import embedder as chosen
    from distforget.finding.reading import Data
    from distforget.report.progress import Progress
    from distforget.report.similar import print_similar, write_similar
    from distforget.sources._pairs import Columns

    columns = Columns(question=question, answer=answer)
    wish = Wish(chosen(embedder, dtype), most, by_chance, cut)
    folder = placement.store / "similar" / checked_name(name)
    with Progress(console) as progress:
        found = find(
            Data(train_data, "--train-data", columns),
            Data(forget, "--forget", columns),
            wish,
            placement,
            progress.told,
        )
    print_similar(found, console)
    for path in write_similar(found, folder):
        console.print(f"written: {path}", soft_wrap=True, highlight=False)
