"""Commands about models that somebody else trained or unlearned."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distforget.cli.common import checked_dtype, checked_name, console, placed
from distforget.cli.running import run_quietly, run_study
from distforget.errors import UsageError
from distforget.placement import Placement

if TYPE_CHECKING:
    from distforget.engine.similar import Found


@placed("store", "address", "device")
def verify(
    before: Annotated[
        str, typer.Option(help="Model before unlearning: folder, hub id, or LoRA adapter.")
    ],
    after: Annotated[str, typer.Option(help="Model after unlearning, in any of these forms.")],
    data: Annotated[
        str,
        typer.Option(
            help="Questions and answers: the rows with role target are what was to be forgotten; "
            "similar, neighbour and other rows are used where there are any."
        ),
    ],
    retain: Annotated[
        str,
        typer.Option(
            help="What was to be kept, if it lies elsewhere; then all rows of --data were to be "
            "forgotten. TOFU: --data locuslab/TOFU/forget10 --retain locuslab/TOFU/retain90."
        ),
    ] = "",
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
    from distforget.disk import write_lines
    from distforget.finding.texts import Texts
    from distforget.loading import write_study
    from distforget.remote import open_store
    from distforget.sources._pairs import Columns
    from distforget.verifying import joined, study_of, unsaid

    checked_name(name)
    checked_dtype("--dtype", dtype)
    folder = open_store(placement.store).root / "studies" / name
    place = Path(data)
    if retain:
        columns = Columns()
        forget, kept = Texts(data, "--data", columns), Texts(retain, "--retain", columns)
        place = folder / "data.jsonl"
        write_lines(place, joined(forget, kept))
    study, found = study_of(
        place, before, after, base, retrained, targets=targets, name=name, dtype=dtype
    )
    path = folder / "study.yaml"
    write_study(study, path)
    console.print(f"study: {path}, which report, query and ask take", soft_wrap=True)
    run_study(study, placement, full_page=False)
    for sentence in unsaid(study, found):
        console.print(sentence)


Forget = Annotated[
    str,
    typer.Option(
        help="What is to be forgotten: questions and answers in a file, the rows with role target, "
        "or all rows if there is no column role."
    ),
]
TrainData = Annotated[
    str,
    typer.Option(
        help="What the model was trained on: a file, a folder of shards, or a hub id. Formats as "
        "for studies: JSON Lines, JSON, CSV, Parquet, Arrow, chats."
    ),
]
Embedder = Annotated[
    str,
    typer.Option(
        help="Finds similar samples; a model of sentence-transformers: a folder or hub id, e.g. "
        "intfloat/multilingual-e5-small for other languages than English. Without it "
        "builtin:minilm. Images: pixels (without it), resnet50, or the folder of a classifier."
    ),
]
Question = Annotated[str, typer.Option(help="Column of the question.")]
Answer = Annotated[str, typer.Option(help="Column of the answer.")]
ByChance = Annotated[
    float,
    typer.Option(min=1e-9, help="Rows of each request that chance may make similar; sets the cut."),
]
Cut = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Cosine from which rows are similar; 0: from the data."),
]
Most = Annotated[int, typer.Option(min=1, help="At most so many similar rows of each request.")]


@placed("store", "address", "device", "cpus")
def similar(
    forget: Forget,
    train_data: TrainData,
    embedder: Embedder = "",
    embedder_dtype: Annotated[
        str, typer.Option(help="float32, or bfloat16, about twice as fast.")
    ] = "float32",
    question: Question = "question",
    answer: Answer = "answer",
    by_chance: ByChance = 0.5,
    cut: Cut = 0.0,
    most: Most = 100,
    name: Annotated[str, typer.Option(help="Name of the folder of results.")] = "similar",
    *,
    placement: Placement,
) -> None:
    """Find samples in training data that are similar to those that are to be forgotten.

    By meaning (cosine of sentence embeddings) and by wording (shared n-grams), exactly and over all
    rows. Embeddings are kept: a second forget list costs seconds, and a run that was killed goes on
    where it was. Writes STORE/similar/NAME: the table `similar`, a figure, and pairs.jsonl, which
    a study takes as its data.

    Images likewise, in a .npz file or a folder of pictures: by cosine of pixels or features, and by
    structural similarity (SSIM).

    Example: `distforget similar --forget requests.jsonl --train-data train.parquet`
    """
    from distforget.remote import open_store
    from distforget.report.similar import print_similar, write_similar

    folder = open_store(placement.store).root / "similar" / checked_name(name)
    found = _found(
        forget, train_data, (question, answer), (embedder, embedder_dtype),
        (most, by_chance, cut), placement,
    )  # fmt: skip
    print_similar(found, console)
    for path in write_similar(found, folder):
        console.print(f"written: {path}", soft_wrap=True, highlight=False)


def _found(
    forget: str,
    train_data: str,
    columns: tuple[str, str],
    embedder: tuple[str, str],
    wish: tuple[int, float, float],
    placement: Placement,
) -> Found:
    """The similar samples that options ask for; progress is printed."""
    from distforget.engine.similar import Wish, find
    from distforget.finding.embedders import EmbedderConfig
    from distforget.finding.images import Images
    from distforget.finding.kinds import Data
    from distforget.finding.texts import Texts
    from distforget.report.progress import Progress
    from distforget.sources._pairs import Columns

    dtype = checked_dtype("--embedder-dtype", embedder[1])
    named = Columns(question=columns[0], answer=columns[1])

    def data(path: str, option: str) -> Data:
        return Images(path, option) if Images.are_in(path) else Texts(path, option, named)

    trained = data(train_data, "--train-data")
    config = EmbedderConfig(path=embedder[0] or trained.kind.embedder, dtype=dtype)
    with Progress(console) as progress:
        return find(
            trained, data(forget, "--forget"), Wish(config, *wish), placement, progress.told
        )


@placed("store", "address", "device", "cpus")
def audit(
    model: Annotated[
        str, typer.Option(help="The model that knows too much: folder, hub id, or LoRA adapter.")
    ],
    forget: Forget,
    train_data: TrainData,
    base: Annotated[
        str, typer.Option(help="The model before fine-tuning: what is known without the data.")
    ] = "",
    method: Annotated[str, typer.Option(help="Unlearning method; see `list methods`.")] = "NPO_GDN",
    settings: Annotated[
        str, typer.Option(help="Settings of the method, e.g. steps=8,learning_rate=3e-5.")
    ] = "",
    embedder: Embedder = "",
    question: Question = "question",
    answer: Answer = "answer",
    by_chance: ByChance = 0.5,
    cut: Cut = 0.0,
    most: Most = 20,
    name: Annotated[str, typer.Option(help="Name of the audit's study.")] = "audit",
    dtype: Annotated[str, typer.Option(help="Of the model: float32 or bfloat16.")] = "float32",
    *,
    placement: Placement,
) -> None:
    """Audit a model: does it forget a request if the request alone is unlearned?

    Finds the samples of the training data that are similar to each request, then unlearns the
    request alone, with its similar samples, with noise (the paper's enhanced scheme), and with each
    group of similar samples in turn. Says for each request whether it is forgotten, which similar
    samples keep it alive, and what to unlearn. Nothing is fine-tuned, and the model is not changed.

    Example: `distforget audit --model my/tuned --train-data train.jsonl --forget requests.jsonl`
    """
    from distforget.analysis.requests import answered
    from distforget.auditing import ordered, requests_of, study_of
    from distforget.disk import write_lines
    from distforget.finding.images import Images
    from distforget.loading import write_study
    from distforget.method_choice import MethodChoice
    from distforget.methods import resolve
    from distforget.origins import origin
    from distforget.remote import open_store
    from distforget.report.requests import print_requests, write_requests
    from distforget.report.similar import pairs, print_similar, write_similar

    folder = open_store(placement.store).root / "studies" / checked_name(name)
    if Images.are_in(train_data):
        raise UsageError(
            f"--train-data {train_data} holds images; audit takes questions and answers. For "
            "images, similar finds samples, and a study with a model's `tuned` unlearns them"
        )
    chosen = settings_of(settings)
    checked_dtype("--dtype", dtype)
    resolve(MethodChoice(name=method, settings=tuple(chosen.items())))
    for option, given in (("--model", model), ("--base", base)):
        if given:
            origin(given, option)
    found = _found(
        forget, train_data, (question, answer), (embedder, "float32"),
        (most, by_chance, cut), placement,
    )  # fmt: skip
    print_similar(found, console)
    write_similar(found, folder / "similar")
    rows = pairs(found)
    requests = requests_of(rows)
    others = [row for row in rows if row["role"] == "other"]
    data = folder / "data.jsonl"
    write_lines(data, ordered(requests, others))
    study = study_of(
        data, requests, len(others), model, base, method, chosen, name=name, dtype=dtype
    )
    write_study(study, folder / "study.yaml")
    summary = run_quietly(study, placement)
    answers = answered(study, requests, summary.tables)
    print_requests(answers, console)
    about = {
        "model": model,
        "base": base or "not given",
        "training data": f"{train_data}, {found.rows:,} rows",
        "method": f"{method} {settings}".strip(),
    }
    for what, path in write_requests(answers, about, folder).items():
        console.print(f"{what}: {path}", soft_wrap=True, highlight=False)
    if len(answers) < len(requests):
        console.print(f"{len(requests) - len(answers)} requests failed; the same command goes on")
        raise typer.Exit(1)


def settings_of(given: str) -> dict[str, float | int | str]:
    """The settings in 'steps=8,learning_rate=3e-5'.

    Raises:
        UsageError: a part is not name=value.
    """
    found: dict[str, float | int | str] = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        name, equals, value = part.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise UsageError(f"--settings: {part!r} is not name=value, e.g. steps=8")
        found[name.strip()] = _number(value.strip())
    return found


def _number(value: str) -> float | int | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
