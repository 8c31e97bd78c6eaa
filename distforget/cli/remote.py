"""Commands that speak with a cluster from outside."""

from __future__ import annotations

from typing import Annotated

import typer

from distforget.cli.common import StudyArgument, console, placed
from distforget.loading import load_study
from distforget.placement import Placement

FIELDS = tuple(name for name in Placement.model_fields if name != "address")


@placed(*FIELDS)
def submit(
    address: Annotated[
        str, typer.Argument(help="The cluster's dashboard, e.g. http://127.0.0.1:8265.")
    ],
    study: StudyArgument,
    follow: Annotated[
        bool, typer.Option(help="Print what the job prints; its end is this command's.")
    ] = True,
    *,
    placement: Placement,
) -> None:
    """Run a study on a Ray cluster, as a job there.

    The study is sent along. Code, packages, the data it names and credentials are the cluster's.
    Sent again, a job that is under way is followed, and one that has ended goes on where it was.
    Ctrl-C ends only the following: `ray job stop` ends the job.

    Example: `distforget submit http://127.0.0.1:8265 demo --store s3://bucket/results`
    """
    from distforget.engine.jobs import follow as following
    from distforget.engine.jobs import submit as submitted
    from distforget.engine.jobs import succeeded

    job = submitted(address, load_study(study), placement, console.print)
    console.print(f"job: {job}", soft_wrap=True, highlight=False)
    if not follow:
        return
    for text in following(address, job):
        console.out(text, end="", highlight=False)
    if not succeeded(address, job):
        raise typer.Exit(1)
