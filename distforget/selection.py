"""Selects rows for training, retention and evaluation; every method sees the same draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distforget.draws import rng
from distforget.errors import UsageError
from distforget.probes import probe_of
from distforget.study import Study

NEVER_TRAINED = ("paraphrase", "unseen", "utility")
"""Roles that are never trained on, at any dose."""


def training_rows(samples: pa.Table, dose: int) -> pa.Table:
    """The training data of a dose, in the order of the dataset.

    Left out are rows that are never trained on, and similar samples of a rank above `dose`. A row
    with a fill_rank takes the place of a similar sample: it is in where at least fill_rank of them
    are left out.
    """
    ranks = pc.fill_null(samples["similar_rank"], 0)
    left_out = max((pc.max(ranks).as_py() or 0) - dose, 0)
    in_dose = pc.and_(
        pc.less_equal(ranks, dose),
        pc.less_equal(pc.fill_null(samples["fill_rank"], 0), left_out),
    )
    never = pc.is_in(samples["role"], pa.array(NEVER_TRAINED))
    return samples.filter(pc.and_(in_dose, pc.invert(never)))


def _steady_others(samples: pa.Table) -> pa.ChunkedArray:
    """Marks the other samples that are trained on at every dose."""
    return pc.and_(pc.equal(samples["role"], "other"), pc.is_null(samples["fill_rank"]))


def target_row(samples: pa.Table, target: int) -> pa.Table:
    """The one row of a target (1-based index)."""
    return _family(samples, target, "target")


def paraphrase_rows(samples: pa.Table, target: int, count: int) -> pa.Table:
    """The first `count` paraphrases F(x_i) of a target."""
    return _family(samples, target, "paraphrase").slice(0, count)


def similar_rows(rows: pa.Table, target: int, ranks: Sequence[int]) -> pa.Table:
    """The similar samples of a target that have one of these ranks."""
    mine = _family(rows, target, "similar")
    return mine.filter(pc.is_in(mine["similar_rank"], pa.array(ranks, pa.int32())))


def _family(samples: pa.Table, target: int, role: str) -> pa.Table:
    mine = pc.equal(pc.fill_null(samples["target_index"], 0), target)
    return samples.filter(pc.and_(mine, pc.equal(samples["role"], role)))


def without(rows: pa.Table, left_out: pa.Table) -> pa.Table:
    """The rows that are not among those to leave out."""
    gone = left_out["sample_id"].combine_chunks()
    return rows.filter(pc.invert(pc.is_in(rows["sample_id"], gone)))


def placebo_row(
    samples: pa.Table, target: int, dose: int, repetition: int, study: Study
) -> pa.Table:
    """An unrelated sample to unlearn instead of a target: trained on, not retained, not asked.

    Raises:
        UsageError: there is no such sample.
    """
    free = without(unasked_others(samples, study), retain_rows(samples, dose, repetition, study))
    if not len(free):
        raise UsageError(
            "placebo_targets: no other sample is free to be unlearned, all are retained or asked; "
            "raise data.others or lower unlearn.retain_batches"
        )
    draw = rng(study.seed, "placebo", target, repetition)
    return free.slice(int(draw.integers(len(free))), 1)


def unasked_others(samples: pa.Table, study: Study) -> pa.Table:
    """The other samples that are trained on at every dose and that no model is asked."""
    return without(samples.filter(_steady_others(samples)), asked_rows(samples, range(0), study))


def retain_rows(samples: pa.Table, dose: int, repetition: int, study: Study) -> pa.Table:
    """D_r: rows drawn from the training data less all targets, so that every cell can share them.

    The draw is about dose and repetition alone: methods, models and targets are compared on the
    same batches.
    """
    trained = training_rows(samples, dose)
    pool = trained.filter(pc.not_equal(trained["role"], "target"))
    wanted = study.unlearn.retain_batch_size * study.unlearn.retain_batches
    draw = rng(study.seed, "retain", dose, repetition)
    chosen = draw.permutation(len(pool))[:wanted]
    return pool.take(chosen)


def retain_batches(rows: int, batch_size: int) -> list[list[int]]:
    """Row numbers of each retain batch."""
    return [list(range(i, min(i + batch_size, rows))) for i in range(0, rows, batch_size)]


def asked_rows(samples: pa.Table, targets: Sequence[int], study: Study) -> pa.Table:
    """The samples that a model is asked: targets, similar samples, neighbours and others.

    Of each target the first `verify.similar` similar samples; for all targets the same
    `verify.others` others and `verify.unseen` samples that are never trained on, and all
    questions of utility.
    """
    role, index = samples["role"], pc.fill_null(samples["target_index"], 0)
    mine = pc.and_(
        pc.and_(
            pc.is_in(index, pa.array(targets, pa.int32())),
            pc.less_equal(pc.fill_null(samples["similar_rank"], 0), study.verify.similar),
        ),
        pc.not_equal(role, "paraphrase"),
    )
    mask = pc.or_(mine, pc.equal(role, "utility")).to_numpy().astype(bool)
    for what, rows, count in (
        ("asked others", _steady_others(samples), study.verify.others),
        ("asked unseen", pc.equal(role, "unseen"), study.verify.unseen),
    ):
        mask[rng(study.seed, what).permutation(np.flatnonzero(rows.to_numpy()))[:count]] = True
    return samples.filter(pa.array(mask))


def refuse_blind_probes(study: Study, samples: pa.Table) -> None:
    """Check that the study's probes can tell right answers from wrong ones.

    Args:
        samples: the whole dataset.

    Raises:
        UsageError: a probe cannot; names row and fix.
    """
    asked = asked_rows(samples, range(1, study.unlearn_targets + 1), study)
    for config in study.probes:
        refuse = probe_of(config).refuse
        if refuse is not None:
            refuse(samples, asked, study.data.name, config)


def random_answer_draw(target: int, repetition: int, study: Study) -> np.random.Generator:
    """Generator of a target's random answers; the same for all models, doses and methods."""
    return rng(study.seed, "random answer", target, repetition)


def answer_of_another_sample(
    samples: pa.Table, rows: pa.Table, target: int, draw: np.random.Generator
) -> str:
    """The answer of a sample that is not of the target's family, and not an answer of `rows`.

    Raises:
        UsageError: there is none.
    """
    strange = samples.filter(
        pc.and_(
            pc.not_equal(pc.fill_null(samples["target_index"], 0), target),
            pc.invert(pc.is_in(samples["answer"], rows["answer"].combine_chunks())),
        )
    )
    strange = strange.filter(pc.not_equal(strange["role"], "utility"))
    others = strange.filter(pc.equal(strange["role"], "other"))
    pool = others if len(others) else strange
    if not len(pool):
        raise UsageError(
            "methods: GDR needs a random answer, but there is no sample beside the target's own "
            "family; raise data.others or data.targets, or choose another random_answer"
        )
    return str(pool["answer"][int(draw.integers(len(pool)))])


def with_answers(rows: pa.Table, answers: Sequence[str]) -> pa.Table:
    """The rows with their answers replaced."""
    place = rows.schema.get_field_index("answer")
    return rows.set_column(place, rows.schema.field(place), pa.array(answers, pa.string()))
