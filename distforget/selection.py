"""Which rows of `samples` are trained on, retained and asked; the same draws for every method."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distforget.study import Study, UsageError, rng


def training_rows(samples: pa.Table, dose: int) -> pa.Table:
    """Targets, the first `dose` similar samples of each, and all others, in dataset order."""
    kept = pc.or_(
        pc.not_equal(samples["role"], "similar"),
        pc.less_equal(pc.fill_null(samples["similar_rank"], 0), dose),
    )
    return samples.filter(kept)


def target_row(samples: pa.Table, target: int) -> pa.Table:
    """The one row of a target (1-based index)."""
    return samples.filter(
        pc.and_(
            pc.equal(samples["role"], "target"),
            pc.equal(pc.fill_null(samples["target_index"], 0), target),
        )
    )


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


def asked_rows(samples: pa.Table, targets: range, study: Study) -> pa.Table:
    """Targets, their first `verify.similar` similar samples (trained on or not), some others."""
    role, index = samples["role"], pc.fill_null(samples["target_index"], 0)
    mine = pc.and_(
        pc.is_in(index, pa.array(list(targets), pa.int32())),
        pc.less_equal(pc.fill_null(samples["similar_rank"], 0), study.verify.similar),
    )
    others = np.flatnonzero(pc.equal(role, "other").to_numpy())
    draw = rng(study.seed, "asked others")
    chosen = np.sort(draw.permutation(others)[: study.verify.others])
    mask = mine.to_numpy().astype(bool)
    mask[chosen] = True
    return samples.filter(pa.array(mask))


def random_answer(samples: pa.Table, target: pa.Table, repetition: int, study: Study) -> pa.Table:
    """The target's question with the answer of another sample (GDR), the same for all models.

    Raises:
        UsageError: no sample outside the target's family has another answer.
    """
    number = target["target_index"][0].as_py()
    strange = samples.filter(
        pc.and_(
            pc.not_equal(pc.fill_null(samples["target_index"], 0), number),
            pc.not_equal(samples["answer"], target["answer"][0]),
        )
    )
    others = strange.filter(pc.equal(strange["role"], "other"))
    pool = others if len(others) else strange
    if not len(pool):
        raise UsageError(
            "methods: GDR needs a random answer, but there is no sample beside the target's own "
            "family; raise dataset.others or dataset.targets"
        )
    draw = rng(study.seed, "random answer", number, repetition)
    answer = pool["answer"].take([int(draw.integers(len(pool)))])
    place = target.schema.get_field_index("answer")
    return target.set_column(place, target.schema.field(place), answer)
