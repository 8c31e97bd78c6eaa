"""Which rows are trained on, retained and asked, against loops over the rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from distforget import schemas, selection
from distforget.errors import UsageError
from distforget.study import Study

TARGETS, SIMILAR, OTHERS = 3, 4, 9


def study(**changes: Any) -> Study:
    content = {
        "name": "s",
        "data": {"targets": TARGETS, "others": OTHERS, "similar": {"per_target": SIMILAR}},
        "models": [{"name": "m", "base": "some/model"}],
        "methods": ["GA_KLN", "GDR"],
        "unlearn_targets": TARGETS,
        "unlearn": {"retain_batch_size": 3, "retain_batches": 2},
        "verify": {"similar": 2, "others": 5},
        **changes,
    }
    return Study.model_validate(content)


def row(
    number: int, role: str, target: int | None = None, rank: int | None = None
) -> dict[str, Any]:
    return {
        "dataset": "d",
        "sample_id": number,
        "role": role,
        "target_index": target,
        "similar_rank": rank,
        "question": f"question {number}",
        "answer": f"answer of family {target}" if target else f"answer {number}",
    }


def samples(others: int = OTHERS) -> pa.Table:
    """Others first and between: no rule may lean on the order of roles."""
    rows = [("other", None, None)] * (others // 2)
    for target in range(1, TARGETS + 1):
        rows.append(("target", target, None))
        rows += [("similar", target, rank) for rank in range(1, SIMILAR + 1)]
    rows += [("other", None, None)] * (others - others // 2)
    return schemas.from_rows("samples", [row(i, *of) for i, of in enumerate(rows)])


def ids(table: pa.Table) -> list[int]:
    return [int(i) for i in table["sample_id"].to_pylist()]


@pytest.mark.parametrize("dose", range(SIMILAR + 1))
def test_a_dose_keeps_that_many_similar_samples_of_each_target(dose: int) -> None:
    expected = [
        r["sample_id"]
        for r in samples().to_pylist()
        if r["role"] in ("target", "other") or r["similar_rank"] <= dose
    ]
    found = ids(selection.training_rows(samples(), dose))
    assert found == expected
    assert len(found) == TARGETS + OTHERS + dose * TARGETS


def test_doses_are_nested_from_none_to_all() -> None:
    by_dose = [set(ids(selection.training_rows(samples(), d))) for d in range(SIMILAR + 1)]
    assert all(less < more for less, more in pairwise(by_dose))
    roles = set(selection.training_rows(samples(), 0)["role"].to_pylist())
    assert roles == {"target", "other"}
    assert by_dose[-1] == set(range(len(samples())))


@pytest.mark.parametrize("target", range(1, TARGETS + 1))
def test_the_row_of_a_target(target: int) -> None:
    (found,) = selection.target_row(samples(), target).to_pylist()
    assert (found["role"], found["target_index"]) == ("target", target)


@pytest.mark.parametrize("repetition", range(5))
@pytest.mark.parametrize("dose", [0, 2, SIMILAR])
def test_retained_rows_are_training_rows_but_no_target(dose: int, repetition: int) -> None:
    retained = selection.retain_rows(samples(), dose, repetition, study())
    trained = set(ids(selection.training_rows(samples(), dose)))
    assert set(ids(retained)) <= trained
    assert "target" not in retained["role"].to_pylist()
    assert len(set(ids(retained))) == 3 * 2


def test_retained_rows_are_the_same_for_all_methods_and_models() -> None:
    one = study()
    other = study(
        methods=["TV"], models=[{"name": "n", "base": "other/model"}], unlearn_targets=1,
        finetune={"learning_rate": 1e-3},
    )  # fmt: skip
    for dose in (0, SIMILAR):
        left = selection.retain_rows(samples(), dose, 0, one)
        assert ids(left) == ids(selection.retain_rows(samples(), dose, 0, other))


def test_retained_rows_are_drawn_anew_for_each_repetition_and_seed() -> None:
    drawn = [
        ids(selection.retain_rows(samples(), SIMILAR, repetition, study(seed=seed)))
        for repetition, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len({tuple(d) for d in drawn}) == 3


def test_retained_rows_are_all_there_are_when_fewer_than_wanted() -> None:
    few = study(unlearn={"retain_batch_size": 50, "retain_batches": 50})
    assert len(selection.retain_rows(samples(), SIMILAR, 0, few)) == SIMILAR * TARGETS + OTHERS


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(6, 3, [[0, 1, 2], [3, 4, 5]]), (5, 2, [[0, 1], [2, 3], [4]]), (1, 4, [[0]]), (0, 2, [])],
)
def test_retain_batches_take_each_row_once(rows: int, size: int, expected: list[list[int]]) -> None:
    assert selection.retain_batches(rows, size) == expected


@pytest.mark.parametrize("similar", [0, 2, SIMILAR, 50])
@pytest.mark.parametrize("targets", [range(1, 2), range(2, 4), range(1, 4)])
def test_a_target_is_asked_with_its_first_similar_samples(targets: range, similar: int) -> None:
    asked = selection.asked_rows(
        samples(), targets, study(verify={"similar": similar, "others": 0})
    )
    expected = [
        r["sample_id"]
        for r in samples().to_pylist()
        if r["target_index"] in targets
        and (r["role"] == "target" or (r["role"] == "similar" and r["similar_rank"] <= similar))
    ]
    assert ids(asked) == expected


def test_the_same_others_are_asked_whatever_is_unlearned() -> None:
    def others(targets: range) -> list[int]:
        asked = selection.asked_rows(samples(), targets, study())
        return [r["sample_id"] for r in asked.to_pylist() if r["role"] == "other"]

    assert len(set(others(range(1, 2)))) == 5
    assert others(range(1, 2)) == others(range(3, 4)) == others(range(1, 4))


@pytest.mark.parametrize("others", [OTHERS, 0])
@pytest.mark.parametrize("target", range(1, TARGETS + 1))
def test_a_random_answer_is_an_answer_of_another_sample(target: int, others: int) -> None:
    true = selection.target_row(samples(others), target)
    for repetition in range(20):
        draw = selection.random_answer_draw(target, repetition, study())
        answer = selection.answer_of_another_sample(samples(others), true, target, draw)
        assert answer != true["answer"][0].as_py()
        assert answer in samples(others)["answer"].to_pylist()
        changed = selection.with_answers(true, [answer])
        assert changed["answer"].to_pylist() == [answer]
        assert changed.drop_columns("answer") == true.drop_columns("answer")


def test_random_answers_vary_with_target_and_repetition_alone() -> None:
    def drawn(target: int, repetition: int, **changes: Any) -> str:
        true = selection.target_row(samples(), target)
        draw = selection.random_answer_draw(target, repetition, study(**changes))
        return selection.answer_of_another_sample(samples(), true, target, draw)

    assert len({drawn(1, r) for r in range(20)}) > 1
    assert len({tuple(drawn(t, r) for r in range(20)) for t in range(1, 4)}) == 3
    assert drawn(1, 0) == drawn(1, 0, methods=["GDR_KLN"], doses=[0])


def test_a_random_answer_needs_another_family() -> None:
    family = samples(0).filter(pc.equal(samples(0)["target_index"], 1))
    true = selection.target_row(family, 1)
    draw = selection.random_answer_draw(1, 0, study())
    with pytest.raises(UsageError, match=r"random answer.*data\.others"):
        selection.answer_of_another_sample(family, true, 1, draw)


def images() -> pa.Table:
    """Of each target as many rows that fill up as it has similar samples, and unseen rows."""
    fills = [
        {**row(100 + 10 * target + rank, "other"), "fill_rank": rank}
        for target in range(1, TARGETS + 1)
        for rank in range(1, SIMILAR + 1)
    ]
    unseen = [row(200 + i, "unseen") for i in range(5)]
    return pa.concat_tables([samples(), schemas.from_rows("samples", [*fills, *unseen])])


@pytest.mark.parametrize("dose", range(SIMILAR + 1))
def test_rows_that_fill_up_take_the_place_of_similar_samples(dose: int) -> None:
    trained = selection.training_rows(images(), dose).to_pylist()
    assert len(trained) == TARGETS * (1 + SIMILAR) + OTHERS
    fills = [r for r in trained if r["fill_rank"]]
    assert sorted(r["fill_rank"] for r in fills) == sorted(
        TARGETS * list(range(1, SIMILAR - dose + 1))
    )
    assert "unseen" not in {r["role"] for r in trained}


def test_others_asked_and_placebos_are_trained_on_at_every_dose() -> None:
    table, asks = images(), study(verify={"others": 99, "similar": 0})
    asked = selection.asked_rows(table, range(1, TARGETS + 1), asks)
    steady = {i for i in ids(samples()) if samples()["role"][i].as_py() == "other"}
    assert {r["sample_id"] for r in asked.to_pylist() if r["role"] == "other"} == steady
    assert "unseen" not in asked["role"].to_pylist()
    few = study(unlearn={"retain_batch_size": 1, "retain_batches": 1}, verify={"others": 1})
    for target in range(1, TARGETS + 1):
        assert ids(selection.placebo_row(table, target, 0, 0, few))[0] in steady


def families() -> pa.Table:
    """The samples above, and of each target two paraphrases and a neighbour."""
    more = [
        row(100 + 10 * target + i, role, target)
        for target in range(1, TARGETS + 1)
        for i, role in enumerate(("paraphrase", "paraphrase", "neighbour"))
    ]
    return pa.concat_tables([samples(), schemas.from_rows("samples", more)])


def test_paraphrases_are_neither_trained_on_nor_retained_nor_asked() -> None:
    table = families()
    paraphrases = set(ids(table.filter(pc.equal(table["role"], "paraphrase"))))
    assert len(paraphrases) == 2 * TARGETS
    for chosen in (
        selection.training_rows(table, SIMILAR),
        selection.retain_rows(table, SIMILAR, 0, study(unlearn={"retain_batches": 99})),
        selection.asked_rows(table, range(1, TARGETS + 1), study()),
    ):
        assert not paraphrases & set(ids(chosen))


def test_paraphrases_are_the_first_of_the_target() -> None:
    assert ids(selection.paraphrase_rows(families(), 2, 1)) == [120]
    assert ids(selection.paraphrase_rows(families(), 2, 2)) == [120, 121]


def test_neighbours_are_trained_on_and_asked_with_their_target() -> None:
    assert {112, 122, 132} <= set(ids(selection.training_rows(families(), 0)))
    asked = selection.asked_rows(families(), range(2, 3), study())
    near = asked.filter(pc.equal(asked["role"], "neighbour"))
    assert ids(near) == [122]


@pytest.mark.parametrize("dose", [0, SIMILAR])
def test_a_placebo_is_trained_on_and_neither_retained_nor_asked(dose: int) -> None:
    table, asks = samples(30), study(verify={"similar": 2, "others": 5})
    busy = {
        *ids(selection.retain_rows(table, dose, 0, asks)),
        *ids(selection.asked_rows(table, range(1, 4), asks)),
    }
    drawn = [selection.placebo_row(table, target, dose, 0, asks) for target in range(1, 4)]
    for chosen in drawn:
        assert chosen["role"].to_pylist() == ["other"]
        assert not busy & set(ids(chosen))
        assert set(ids(chosen)) <= set(ids(selection.training_rows(table, dose)))
    assert len({ids(chosen)[0] for chosen in drawn}) > 1


def test_no_sample_free_for_a_placebo_is_said() -> None:
    with pytest.raises(UsageError, match=r"placebo_targets.*data\.others"):
        selection.placebo_row(samples(), 1, 0, 0, study(verify={"others": OTHERS}))
