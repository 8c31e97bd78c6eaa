"""Attacks against naive loops, and adapters merged for them against dense weights."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from distforget import cell, schemas, selection
from distforget.attacked import Attacked as AttackedCell
from distforget.attacks import Attacked, attacks, name_of
from distforget.attacks._layers import change
from distforget.attacks.hint import HintConfig
from distforget.attacks.hint import asks as asks_hint
from distforget.attacks.prune import PruneConfig, pruned
from distforget.attacks.quantise import QuantiseConfig, rounded
from distforget.attacks.relearn import ATTACK as RELEARN
from distforget.attacks.relearn import RelearnConfig
from distforget.attacks.rephrase import RephraseConfig
from distforget.attacks.rephrase import asks as asks_rephrased
from distforget.errors import UsageError
from distforget.plan import make_plan
from distforget.study import Study
from tests.adapted import Setting, logits_of
from tests.contract.test_method_arithmetic import method
from tests.contract.test_methods import SIMILAR, samples, study
from tests.unit.test_study import IMAGES, changed


class Experts(nn.Module):
    """A layer that holds two matrices in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.ones(2, 3, 4))


def naive(weight: Tensor, bits: int) -> Tensor:
    """Each value at the nearest of the levels that it may have, one by one."""
    found = weight.clone().flatten(1)
    largest = 2 ** (bits - 1) - 1
    for channel in found:
        scale = float(channel.abs().max()) / largest
        levels = [scale * level for level in range(-largest, largest + 1)]
        for place, value in enumerate(channel.tolist()):
            channel[place] = min(levels, key=lambda level: abs(level - value))
    return found.view_as(weight)


@given(st.integers(2, 8), st.integers(0, 2**31), st.sampled_from([(1, 3), (4, 5), (3, 2, 3, 3)]))
def test_each_weight_is_at_the_nearest_level(bits: int, seed: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = rounded(weight, bits)
    torch.testing.assert_close(found, naive(weight, bits))
    assert all(len(channel.unique()) <= 2**bits - 1 for channel in found)
    torch.testing.assert_close(rounded(found, bits), found)  # there already


def test_a_channel_of_zeros_stays() -> None:
    assert torch.equal(rounded(torch.zeros(2, 3), 4), torch.zeros(2, 3))


def test_embeddings_biases_and_the_output_layer_stay(llama: Setting) -> None:
    module = llama.with_adapters(llama.slots.config).module
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    change(module, lambda weight: rounded(weight, 3))
    for name, weight in module.state_dict().items():
        changed = "proj" in name and "lora" not in name
        assert torch.equal(weight, before[name]) != changed, name


def test_channels_of_gpt2_are_columns() -> None:
    layer = Conv1D(3, 5)
    expected = rounded(layer.weight.detach().T, 3).T
    change(nn.Sequential(layer), lambda weight: rounded(weight, 3))
    assert torch.equal(layer.weight, expected)


def test_a_layer_that_it_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match=r"but 0\.packed belongs to a Experts"):
        change(nn.Sequential(Experts()), lambda weight: weight)


def test_a_merged_adapter_is_the_dense_model_and_leaves_nothing_behind(exact: Setting) -> None:
    learner, slots = exact.learner, exact.slots
    slots.load([exact.start])
    before = logits_of(learner.module)
    expected = logits_of(exact.dense(exact.merged(exact.start)))
    with learner.merged() as module:
        torch.testing.assert_close(logits_of(module), expected, rtol=0, atol=1e-12)
        change(module, lambda weight: rounded(weight, 2))
        assert (logits_of(module) - expected).abs().max() > 0.1
    assert torch.equal(logits_of(learner.module), before)
    with suppress(KeyboardInterrupt), learner.merged() as module:
        change(module, lambda weight: rounded(weight, 2))
        raise KeyboardInterrupt
    assert torch.equal(logits_of(learner.module), before)


@given(st.integers(2, 8), st.integers(1, 9), st.integers(0, 2**31))
def test_each_group_of_weights_has_its_own_levels(bits: int, group: int, seed: int) -> None:
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    before = weight.clone()
    expected = torch.cat([naive(part, bits) for part in weight.split(group, dim=1)], dim=1)
    torch.testing.assert_close(rounded(weight, bits, group), expected)
    assert torch.equal(weight, before)


@given(st.integers(1, 99), st.integers(0, 2**31), st.sampled_from([(2, 10), (3, 2, 3, 3)]))
def test_the_smallest_weights_of_each_channel_are_gone(
    percent: int, seed: int, shape: tuple[int, ...]
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    before = weight.clone()
    found = pruned(weight, percent)
    assert torch.equal(weight, before)
    for old, new in zip(weight.flatten(1).tolist(), found.flatten(1).tolist(), strict=True):
        order = sorted(range(len(old)), key=lambda place: abs(old[place]))
        gone = set(order[: len(old) * percent // 100])
        assert new == [0.0 if place in gone else value for place, value in enumerate(old)]


def test_names_of_attacks_can_be_told_apart() -> None:
    names = [name_of(QuantiseConfig(bits=bits)) for bits in range(2, 9)]
    names += [name_of(QuantiseConfig(group=32)), name_of(PruneConfig()), name_of(RelearnConfig())]
    assert len(set(names)) == len(names)
    assert "quantise" in attacks()


def attacked(setting: Setting, module: nn.Module, **changes: Any) -> Attacked:
    what = cell.Cell(study(**changes), method("GA"), 1, SIMILAR, 0)
    return AttackedCell(setting.learner, module, samples(), what)


def test_each_attacker_holds_other_samples_and_never_the_target(llama: Setting) -> None:
    state = attacked(llama, llama.learner.module)
    of_target = selection.target_row(samples(), 1)["sample_id"].to_pylist()
    similar, others, nearest = state.similar(), state.others(100), state.nearest(2)
    another = state.another_target()
    assert set(similar["role"].to_pylist()) == {"similar"}
    assert set(similar["target_index"].to_pylist()) == {1}
    assert len(similar) == SIMILAR
    assert set(others["role"].to_pylist()) == {"other"}
    assert (another["role"].to_pylist(), another["target_index"].to_pylist()) == (["target"], [2])
    asked = selection.asked_rows(samples(), range(1, 3), study())["sample_id"].to_pylist()
    assert not set(others["sample_id"].to_pylist()) & {*asked, *of_target}
    assert len(state.others(1)) == 1
    target = selection.target_row(samples(), 1)
    assert nearest == llama.learner.nearest(others, target, 2)
    assert len(state.nearest(100)) == len(others)


def test_an_attacker_without_samples_is_told_so(llama: Setting) -> None:
    asking_all = {"max_new_tokens": 4, "similar": 1, "others": 99}
    with pytest.raises(UsageError, match="no other samples unasked to train on"):
        attacked(llama, llama.learner.module, verify=asking_all).others(3)


def test_relearning_is_that_of_a_plain_loop_and_is_undone(exact: Setting) -> None:
    learner, slots = exact.learner, exact.slots
    slots.load([exact.start])
    before = logits_of(learner.module)
    dense = exact.dense(exact.merged(exact.start))
    config = RelearnConfig(rows="similar", steps=3, learning_rate=1e-3, batch_size=2)
    rows = selection.similar_rows(samples(), 1, [1, 2])
    examples = learner.encode(rows)
    optimiser = torch.optim.AdamW(dense.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(3):
        total, tokens = torch.zeros((), dtype=torch.float64), 0
        for row in range(2):
            batch = exact.encoder.batch(examples, [row])
            logits = dense(input_ids=batch.input_ids_BT).logits[0].log_softmax(-1)[:-1]
            labels = batch.labels_BT[0, 1:]
            kept = labels != -100
            total = total - logits[kept].gather(1, labels[kept][:, None]).sum()
            tokens += int(kept.sum())
        optimiser.zero_grad()
        (total / tokens).backward()
        torch.nn.utils.clip_grad_norm_(dense.parameters(), 1.0)
        optimiser.step()
    with learner.merged() as module:
        RELEARN.run(attacked(exact, module), config)
        found = logits_of(module)
    assert (found - before).abs().max() > 1e-2
    # AdamW makes much of gradients near 0, whose sign is rounding.
    assert (found - logits_of(dense)).abs().max() < 1e-3 * (found - before).abs().max()
    assert torch.equal(logits_of(learner.module), before)
    assert not any(p.requires_grad for n, p in learner.module.named_parameters() if "lora" not in n)


def test_floor_and_ceiling_are_not_relearned() -> None:
    plan = make_plan(study(attacks=["relearn", "quantise"]))
    phases = {
        (step.about["attack"], step.about.get("phase", "post_unlearn")) for step in plan.attacks
    }
    assert {phase for attack, phase in phases if attack.startswith("relearn")} == {"post_unlearn"}
    assert len({phase for attack, phase in phases if attack.startswith("quantise")}) == 3


def test_a_hint_puts_other_samples_before_each_question() -> None:
    rows = samples()
    asked = selection.asked_rows(rows, range(1, 2), study())
    found = asks_hint(asked, rows, HintConfig(shots=2))
    others = rows.filter(pc.equal(rows["role"], "other")).to_pylist()
    assert found.drop_columns("question") == asked.drop_columns("question")
    for before, after in zip(asked.to_pylist(), found.to_pylist(), strict=True):
        shots = [o for o in others if o["sample_id"] != before["sample_id"]][:2]
        expected = [f"{o['question']} {o['answer']}" for o in shots]
        assert after["question"].split("\n") == [*expected, before["question"]]


def test_no_hint_is_of_the_samples_own_family() -> None:
    rows = samples().to_pylist()
    rows[-1] |= {"role": "neighbour", "target_index": 1, "answer": "It is the next one."}
    table = schemas.from_rows("samples", rows)
    found = asks_hint(table.slice(0, 2), table, HintConfig(shots=3)).to_pylist()
    assert "the next one" not in found[0]["question"]
    assert found[1]["question"].startswith(f"{rows[-1]['question']} It is the next one.")


def test_a_target_is_asked_in_the_words_of_a_similar_sample() -> None:
    rows = samples()
    asked = selection.asked_rows(rows, range(1, 3), study())
    found = asks_rephrased(asked, rows, RephraseConfig(rank=2)).to_pylist()
    of_rank = {r["target_index"]: r["question"] for r in rows.to_pylist() if r["similar_rank"] == 2}
    for before, after in zip(asked.to_pylist(), found, strict=True):
        target = before["role"] == "target"
        wanted = of_rank[before["target_index"]] if target else before["question"]
        assert after == {**before, "question": wanted}
    same = asks_rephrased(asked, rows, RephraseConfig(rank=9))
    assert same == asked


def test_questions_with_choices_stay() -> None:
    rows = samples().slice(0, 1).to_pylist()
    rows[0]["choices"] = ["a", "b"]
    table = schemas.from_rows("samples", rows)
    assert asks_hint(table, samples(), HintConfig()) == table


def test_an_attack_by_questions_is_for_text_alone() -> None:
    with pytest.raises(ValueError, match="attacks: 'hint' is for text"):
        Study.model_validate(changed("attacks", ["hint"], IMAGES))
