"""A batch of cells against each cell alone, on peft's layers with torch's AdamW."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor

from distforget import cell, cell_batch, methods
from distforget.cell import Cell
from distforget.method_choice import MethodChoice
from distforget.methods import ResolvedMethod
from distforget.tracks.text.learner import TextLearner
from tests.adapted import ARCHITECTURES, CONFIG, SLOTS, Setting, assert_equal, logits_of, trained
from tests.contract.test_methods import SIMILAR, samples, study

CELLS: Sequence[tuple[str, int, dict[str, Any]]] = (
    ("GA_KLN", 1, {"learning_rate": 1e-3, "steps": 3}),
    ("GA_GDN", 2, {"learning_rate": 3e-3, "steps": 5, "gradient_clip": 0.1}),
    ("NPO_KLN", 1, {"learning_rate": 2e-3, "steps": 1}),
    ("NPO_GDN", 2, {"learning_rate": 1e-3, "steps": 4, "beta": 0.3}),
    ("GDR", 1, {"learning_rate": 1e-2, "steps": 4}),
    ("GDR_KLN", 2, {"learning_rate": 2e-3, "steps": 3, "retain_weight": 0.2}),
    ("GDR_GDN", 1, {"learning_rate": 1e-3, "steps": 2}),
    ("DPO_GDN", 2, {"learning_rate": 2e-3, "steps": 3}),
    ("DPO", 1, {"learning_rate": 1e-3, "steps": 2, "answer_list": "Who knows?"}),
    ("UNDIAL_KLN", 1, {"learning_rate": 1e-3, "steps": 3}),
    ("RMU", 1, {"learning_rate": 1e-3, "steps": 3, "keep": 2.0}),
    ("SalUn_GDN", 2, {"learning_rate": 2e-3, "steps": 3, "share": 0.3}),
    ("SimNPO", 2, {"learning_rate": 1e-3, "steps": 2}),
    ("BadTeacher", 1, {"learning_rate": 1e-3, "steps": 3, "keep": 0.5}),
    ("CE-U", 1, {"learning_rate": 1e-2, "steps": 4}),
    ("TV", 2, {"learning_rate": 5e-3, "steps": 3, "scale": 0.7}),
)
"""The methods of the paper and those with terms of their own.

Targets 1 and 2 have answers of different lengths.
"""


def cells_of(chosen: Sequence[tuple[str, int, dict[str, Any]]]) -> list[Cell]:
    return [
        Cell(study(), method(name, **changes), target, SIMILAR, 0)
        for name, target, changes in chosen
    ]


def method(name: str, **changes: Any) -> ResolvedMethod:
    return methods.resolve(MethodChoice(name=name, settings=tuple(sorted(changes.items()))))


def together(
    setting: Setting, cells: Sequence[Cell]
) -> tuple[list[cell.Unlearned], list[dict[str, Tensor]]]:
    found = cell_batch.unlearn(setting.learner, setting.start, samples(), cells, setting.retain)
    return found, [setting.slots.weights(slot) for slot in range(len(cells))]


def with_peft(setting: Setting, what: Cell) -> tuple[cell.Unlearned, TextLearner]:
    """One cell alone on peft's layers, with torch's AdamW; without its finish."""
    family = dataclasses.replace(what.method.method, finish=None)
    what = dataclasses.replace(what, method=dataclasses.replace(what.method, method=family))
    learner = TextLearner(setting.peft(setting.start), setting.encoder, study().verify)
    start = {name: p.detach().clone() for name, p in learner.module.named_parameters()}
    return cell.unlearn(learner, start, samples(), what, setting.retain), learner


def test_all_methods_in_one_batch_are_as_each_alone(exact: Setting) -> None:
    setting, cells, tolerance = exact, cells_of(CELLS), exact.tolerance
    outcomes, weights = together(setting, cells)
    for what, outcome, mine in zip(cells, outcomes, weights, strict=True):
        expected, learner = with_peft(setting, what)
        assert (outcome.steps, outcome.diverged) == (expected.steps, expected.diverged)
        assert outcome.first_loss == pytest.approx(expected.first_loss, rel=tolerance)
        assert outcome.last_loss == pytest.approx(expected.last_loss, rel=tolerance)
        reached = trained(learner)
        # Far more than the tolerance: the cell has moved.
        assert max(float((reached[n] - w).abs().max()) for n, w in setting.start.items()) > 9e-4
        if what.method.method.finish is None:
            assert_equal(mine, reached, tolerance)
        else:
            finish, start = what.method.method.finish, setting.merged(setting.start)
            dense = finish(start, setting.merged(reached), what.method.config)
            assert_equal(setting.merged(mine), dense, tolerance)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_float32_they_differ_by_rounding_alone(
    architecture: str, folders: dict[str, Path]
) -> None:
    """AdamW makes a full step of a gradient near 0, whose sign is rounding: so not each weight is
    compared, but how far all of them came (apart by 1e-6 to 7e-4 of it on several processors)."""
    setting, cells = Setting(folders[architecture], "float32"), cells_of(CELLS[:-1])
    outcomes, weights = together(setting, cells)
    for what, outcome, mine in zip(cells, outcomes, weights, strict=True):
        expected, learner = with_peft(setting, what)
        assert outcome.first_loss == pytest.approx(expected.first_loss, abs=1e-4)
        assert outcome.last_loss == pytest.approx(expected.last_loss, abs=1e-3)
        reached = trained(learner)
        apart, moved = (
            torch.cat([(a[name] - b[name]).flatten() for name in reached]).norm()
            for a, b in ((mine, reached), (reached, setting.start))
        )
        assert apart < 0.005 * moved


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(len(CELLS))), size=st.integers(1, len(CELLS)))
def test_a_cell_does_not_depend_on_those_beside_it(
    llama: Setting, order: list[int], size: int
) -> None:
    chosen = order[:size]
    _, everyone = together(llama, cells_of(CELLS))
    _, some = together(llama, cells_of([CELLS[i] for i in chosen]))
    for number, weights in zip(chosen, some, strict=True):
        assert_equal(weights, everyone[number], 1e-9)


def broken(factor: float) -> ResolvedMethod:
    """Gradient ascent whose loss is worthless from the second step on."""
    losses = []

    def forget(terms: Any, config: Any) -> Tensor:
        losses.append(-terms.target_nll())
        return losses[-1] * (factor if len(losses) > 1 else 1.0)

    known = method("GA", learning_rate=1e-3)
    return dataclasses.replace(known, method=dataclasses.replace(known.method, forget=forget))


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e6])
def test_a_cell_that_diverges_stops_and_touches_no_other(llama: Setting, factor: float) -> None:
    good = cells_of(CELLS[:3])
    bad = Cell(study(), broken(factor), 1, SIMILAR, 0)
    outcomes, weights = together(llama, [good[0], bad, *good[1:]])
    assert [outcome.diverged for outcome in outcomes] == [False, True, False, False]
    assert [outcome.skipped for outcome in outcomes] == [0, int(not math.isfinite(factor)), 0, 0]
    assert outcomes[1].steps == 2
    _, alone = together(llama, good)
    for mine, expected in zip([weights[0], *weights[2:]], alone, strict=True):
        assert_equal(mine, expected, 1e-9)
    (_, (one_step,)) = together(llama, cells_of([("GA", 1, {"learning_rate": 1e-3, "steps": 1})]))
    if not math.isfinite(factor):  # then the second step was not taken
        assert_equal(weights[1], one_step, 1e-9)


def test_a_cell_of_huge_steps_touches_no_other(llama: Setting) -> None:
    """Its weights, logits and gradients overflow; nothing of it is in the others' rows."""
    huge = ("GA_KLN", 1, {"learning_rate": 1e200, "steps": 4})
    outcomes, weights = together(llama, cells_of([huge, *CELLS]))
    assert [outcome.diverged for outcome in outcomes] == [True, *[False] * len(CELLS)]
    _, alone = together(llama, cells_of(CELLS))
    for mine, expected in zip(weights[1:], alone, strict=True):
        assert_equal(mine, expected, 1e-9)


def test_tv_is_stored_at_twice_the_rank_and_peft_reads_it(llama: Setting, tmp_path: Path) -> None:
    _, (weights, other) = together(llama, cells_of([CELLS[-1], CELLS[0]]))
    assert {w.shape[0] for n, w in weights.items() if "lora_A" in n} == {2 * CONFIG.rank}
    assert {w.shape[0] for n, w in other.items() if "lora_A" in n} == {CONFIG.rank}
    llama.slots.write(weights, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2 * CONFIG.rank
    loaded = PeftModel.from_pretrained(copy.deepcopy(llama.base), str(tmp_path)).double()
    torch.testing.assert_close(logits_of(loaded), logits_of(llama.learner.module))


# Asking, and whole cells.


def test_answers_of_many_cells_at_once_are_those_of_each_alone(exact: Setting) -> None:
    asked = [samples().slice(slot, 3 + slot) for slot in range(SLOTS)]
    exact.slots.load(exact.pool)
    identities = [identity("GA", slot) for slot in range(SLOTS)]
    found = cell_batch.ask(exact.learner, asked, identities)
    for slot in range(SLOTS):
        model = exact.dense(exact.merged(exact.pool[slot]))
        alone = TextLearner(model, exact.encoder, study().verify)
        expected = cell.ask(alone, asked[slot], identities[slot])
        for mine, alone_ in zip(found[slot].to_pylist(), expected.to_pylist(), strict=True):
            logprobs = alone_.pop("expected_logprobs")
            assert mine.pop("expected_logprobs") == pytest.approx(logprobs, rel=1e-5)
            assert mine == alone_
    first = [answers["answer"][0].as_py() for answers in found]
    assert len(set(first)) == SLOTS  # the adapters tell other things


def identity(name: str, target: int) -> dict[str, Any]:
    return {
        "attack": "none", "track": "text", "dataset": "d", "model": "m", "dose": SIMILAR, "seed": 0,
        "method": name, "unlearned": target, "phase": "post_unlearn",
    }  # fmt: skip


def test_whole_cells_together_give_the_rows_of_whole_cells_alone(llama: Setting) -> None:
    cells = cells_of([CELLS[0], CELLS[4], CELLS[7]])
    named = [identity(what.method.name, what.unlearned) for what in cells]

    def run(some: slice) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
        found = cell_batch.run(
            llama.learner, llama.start, samples(), cells[some], llama.retain, named[some]
        )
        return [
            (
                answers.to_pylist(),
                {name: v for name, v in columns.items() if not name.endswith("seconds")},
            )
            for answers, columns in found
        ]

    for number, (answers, columns) in enumerate(run(slice(None))):
        ((expected, alone),) = run(slice(number, number + 1))
        for mine, row in zip(answers, expected, strict=True):
            logprobs = row.pop("expected_logprobs")
            assert mine.pop("expected_logprobs") == pytest.approx(logprobs, rel=1e-5)
            assert mine == row
        assert columns == pytest.approx(alone, rel=1e-9)


def test_a_model_without_slots_cannot_share_a_batch(llama: Setting) -> None:
    learner = TextLearner(copy.deepcopy(llama.base), llama.encoder, study().verify)
    with pytest.raises(ValueError, match="slots of adapters"):
        cell_batch.unlearn(learner, {}, samples(), cells_of(CELLS[:1]), llama.retain)
