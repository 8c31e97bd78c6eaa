"""Targets that are unlearned one after another on the same weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from distforget import cell, cell_batch, schemas
from distforget.analysis.sequences import sequences
from distforget.cell import Cell
from distforget.errors import UsageError
from distforget.models import PromptConfig
from distforget.plan import earlier
from distforget.report.tables import in_turn
from distforget.study import Study
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from tests.adapted import Setting, assert_equal
from tests.contract.test_methods import SIMILAR, Model, samples, starting_here, study
from tests.unit.test_cell_batch import method
from tests.unit.test_study import changed, plan_of
from tests.unit.test_trust import row

SETTINGS = {"learning_rate": 1e-3, "steps": 2}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    encoder = Encoder(load_tokenizer(tiny_model), PromptConfig())
    return starting_here(
        TextLearner(load_model(tiny_model, "float32", "cpu"), encoder, study().verify)
    )


@pytest.mark.parametrize("name", ["GA_KLN", "NPO_GDN", "TV", "DPO"])
def test_in_turn_is_one_unlearned_where_the_other_ended(name: str, model: Model) -> None:
    what = Cell(study(), method(name, **SETTINGS), 1, SIMILAR, 0, earlier=(2,))
    outcome = cell.unlearn(model.learner, model.start, samples(), what, model.retain)
    reached = {n: p.detach().clone() for n, p in model.learner.module.named_parameters()}
    weights = model.start
    for target in (2, 1):
        alone = dataclasses.replace(what, unlearned=target, earlier=())
        cell.unlearn(model.learner, weights, samples(), alone, model.retain)
        weights = {n: p.detach().clone() for n, p in model.learner.module.named_parameters()}
    assert outcome.steps == 4
    assert any(not weights[n].equal(w) for n, w in model.start.items())
    assert all(weights[n].equal(w) for n, w in reached.items())


@pytest.mark.parametrize("name", ["NPO_KLN", "TV"])
def test_adapters_are_unlearned_in_turn_likewise(name: str, exact: Setting) -> None:
    what = Cell(study(), method(name, **SETTINGS), 1, SIMILAR, 0, earlier=(2,))
    unlearn, learner = cell_batch.unlearn, exact.learner
    (outcome,) = unlearn(learner, exact.start, samples(), [what], exact.retain)
    reached = exact.merged(exact.slots.weights(0))
    weights = exact.start
    for target in (2, 1):
        alone = dataclasses.replace(what, unlearned=target, earlier=())
        unlearn(learner, weights, samples(), [alone], exact.retain)
        weights = exact.slots.weights(0)
    assert outcome.steps == 4
    assert_equal(reached, exact.merged(weights), exact.tolerance)


def test_all_targets_unlearned_so_far_are_asked_about(model: Model) -> None:
    what = Cell(study(), method("GA"), 1, SIMILAR, 0, earlier=(2,))
    asked = cell.asked_rows(model.learner, samples(), what)
    alone = cell.asked_rows(model.learner, samples(), dataclasses.replace(what, earlier=()))
    assert sorted(t for t in asked["target_index"].to_pylist() if t) == [1, 1, 2, 2]
    assert set(alone["target_index"].to_pylist()) == {1, None}


def test_each_count_has_a_cell_that_unlearns_so_many_in_the_drawn_order() -> None:
    content = changed("methods", ["GA_KLN", "retrain"])
    content |= {"in_turn": [2, 3], "seeds": 2, "unlearn_targets": 3}
    content["data"] |= {"targets": 3}
    plan = plan_of(content)
    study = plan.study
    assert sorted(study.turns(0)) == [1, 2, 3]
    assert study.turns(0) == plan_of(content).study.turns(0)
    found = [step for step in plan.cells if step.about["variant"] == "in-turn"]
    assert {step.about["method"] for step in found} == {"GA_KLN"}
    for seed in range(2):
        mine = [s for s in found if s.about["seed"] == seed and s.about["dose"] == 0]
        turns = study.turns(seed)
        assert {(*s.config["earlier"], s.about["unlearned"]) for s in mine} == {
            turns[:2], turns[:3],
        }  # fmt: skip
        assert earlier(study, turns[0], seed) == []


def test_more_requests_than_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="in_turn is 9, but unlearn_targets is"):
        Study.model_validate(changed("in_turn", [2, 9]))
    with pytest.raises(ValueError, match="in_turn names '2' twice"):
        Study.model_validate(changed("in_turn", [2, 2]))
    with pytest.raises((ValueError, UsageError), match="'in-turn' is kept for in_turn"):
        Study.model_validate(changed("methods", [{"name": "GA", "variant": "in-turn"}]))


def test_what_is_left_of_the_first_request_is_told_from_the_last() -> None:
    several = Study.model_validate(changed("in_turn", [2]) | {"seed": 3})
    first, last = several.turns(0)[:2]
    own = {"dose": 0, "seed": 0}
    after = {**own, "method": "GA", "phase": "post_unlearn"}
    rows = [row("m", value, t, **own, phase="pre_unlearn") for t, value in ((1, 0.9), (2, 0.7))]
    rows += [row("m", 0.1 * t, t, **after, variant="plain", unlearned=t) for t in (1, 2)]
    in_turns = {**after, "variant": "in-turn", "unlearned": last}
    rows += [row("m", 0.5, first, **in_turns), row("m", 0.3, last, **in_turns)]
    rows += [row("m", v, None, **in_turns, role="other") for v in (0.6, 0.8)]
    (found,) = sequences(several, pa.Table.from_pandas(pd.DataFrame(rows)), "m").to_dict("records")
    assert (found["requests"], found["role"]) == (2, "target")
    expected = {"before": 0.8, "alone": 0.15, "first": 0.5, "last": 0.3, "all": 0.4, "others": 0.7}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    shown = in_turn(pd.DataFrame([found]), "m")
    assert shown.rows == [
        ["m", "GA", "target", "0", "2", "0.80", "0.15", "0.50", "0.30", "0.40", "0.70"]
    ]
    assert sequences(several, schemas.empty("scores"), "m").empty
