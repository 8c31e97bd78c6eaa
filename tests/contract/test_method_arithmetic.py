"""Methods as arithmetic: closed forms of their losses, settings, payloads. No model is loaded."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from distforget import methods
from distforget.draws import rng
from distforget.errors import UsageError
from distforget.method_choice import EnhancedConfig, MethodChoice
from distforget.methods import ResolvedMethod
from distforget.methods.base import Importance, RandomAnswerConfig

NAMES = [n for n in methods.names() if methods.families()[n.partition("_")[0]].forget]
"""Methods that take unlearning steps."""
PLAIN = [name for name in NAMES if "_" not in name]
RANDOM = ("GDR", "relabel")
"""Families that train on random answers."""
PREFERRING = ("DPO", "SalUn")
"""Families that prefer random answers."""
REGULARISED = [name for name in NAMES if "_" in name]


class FixedTerms:
    """Terms that are numbers times a parameter of value 1, so that each has a known gradient."""

    NLL, RETAIN_NLL, RETAIN_KL = 2.0, 3.0, 0.5
    LOGPROBS, REFERENCE = (-6.0, -2.0), (-4.0, -3.0)
    PREFERRED, PREFERRED_REFERENCE = (-7.0, -1.0), (-9.0, -5.0)
    PREFERRED_NLL = 1.5
    HIDDEN, RETAIN_HIDDEN = ((1.0, -2.0), (0.5, 3.0)), ((0.1, 0.2),)
    RETAIN_REFERENCE_HIDDEN = ((0.0, 0.5),)
    TOKENS = ((-1.0, -2.5), (-0.25,))
    """Of two samples: log p of the answer's tokens."""
    NOW, BEFORE, LABELS = (
        ((0.5, 0.3, 0.2), (0.1, 0.8, 0.1)),
        ((0.6, 0.2, 0.2), (0.2, 0.7, 0.1)),
        (0, 1),
    )
    """Probabilities of three tokens at two places, now and under theta_0; the answer's tokens."""

    def __init__(self) -> None:
        self.theta = torch.ones(11, dtype=torch.float64, requires_grad=True)

    def target_nll(self) -> Tensor:
        return self.NLL * self.theta[0]

    def target_logprobs_B(self) -> Tensor:
        return torch.tensor(self.LOGPROBS, dtype=torch.float64) * self.theta[1:3]

    def target_reference_logprobs_B(self) -> Tensor:
        return torch.tensor(self.REFERENCE, dtype=torch.float64)

    def target_token_logprobs(self) -> list[Tensor]:
        return [torch.tensor(one, dtype=torch.float64) * self.theta[5] for one in self.TOKENS]

    def target_distribution_NV(self) -> Tensor:
        return (torch.tensor(self.NOW, dtype=torch.float64).log() * self.theta[6]).log_softmax(-1)

    def target_reference_distribution_NV(self) -> Tensor:
        return torch.tensor(self.BEFORE, dtype=torch.float64).log()

    def target_labels_N(self) -> Tensor:
        return torch.tensor(self.LABELS)

    def preferred_logprobs_B(self) -> Tensor:
        return torch.tensor(self.PREFERRED, dtype=torch.float64) * self.theta[7]

    def preferred_reference_logprobs_B(self) -> Tensor:
        return torch.tensor(self.PREFERRED_REFERENCE, dtype=torch.float64)

    def preferred_nll(self) -> Tensor:
        return self.PREFERRED_NLL * self.theta[8]

    def target_hidden_NH(self, layer: int) -> Tensor:
        return torch.tensor(self.HIDDEN, dtype=torch.float64) * self.theta[9]

    def retain_hidden_NH(self, layer: int) -> Tensor:
        return torch.tensor(self.RETAIN_HIDDEN, dtype=torch.float64) * self.theta[10]

    def retain_reference_hidden_NH(self, layer: int) -> Tensor:
        return torch.tensor(self.RETAIN_REFERENCE_HIDDEN, dtype=torch.float64)

    def retain_nll(self) -> Tensor:
        return self.RETAIN_NLL * self.theta[3]

    def retain_kl(self) -> Tensor:
        return self.RETAIN_KL * self.theta[4]


def method(name: str, **changes: Any) -> ResolvedMethod:
    return methods.resolve(MethodChoice(name=name, settings=tuple(sorted(changes.items()))))


def npo_by_hand(beta: float) -> float:
    ratios = [
        math.exp(a - b) for a, b in zip(FixedTerms.LOGPROBS, FixedTerms.REFERENCE, strict=True)
    ]
    return sum(2 / beta * math.log(1 + ratio**beta) for ratio in ratios) / len(ratios)


def weighted_by_hand(weigh: Callable[[float], float]) -> float:
    tokens = [token for sample in FixedTerms.TOKENS for token in sample]
    return sum(weigh(math.exp(token)) * token for token in tokens) / len(tokens)


def simnpo_by_hand(beta: float, gamma: float) -> float:
    means = [sum(sample) / len(sample) for sample in FixedTerms.TOKENS]
    return sum(2 / beta * math.log(1 + math.exp(beta * m + gamma)) for m in means) / len(means)


def taught_by_hand(taught: Sequence[Sequence[float]], strength: float) -> float:
    """Cross-entropy of NOW with these probabilities, the answer's logit lowered."""
    total = 0.0
    for probs, now, label in zip(taught, FixedTerms.NOW, FixedTerms.LABELS, strict=True):
        lowered = [p * math.exp(-strength) if v == label else p for v, p in enumerate(probs)]
        total -= sum(p / sum(lowered) * math.log(q) for p, q in zip(lowered, now, strict=True))
    return total / len(FixedTerms.NOW)


def dpo_by_hand(beta: float) -> float:
    total = 0.0
    for i in range(2):
        won = FixedTerms.PREFERRED[i] - FixedTerms.PREFERRED_REFERENCE[i]
        lost = FixedTerms.LOGPROBS[i] - FixedTerms.REFERENCE[i]
        total -= 2 / beta * math.log(1 / (1 + math.exp(-beta * (won - lost))))
    return total / 2


def rmu_by_hand(coefficient: float, keep: float) -> float:
    drawn = rng(0, "direction").random(2)
    length = math.sqrt(drawn[0] ** 2 + drawn[1] ** 2)
    goal = [coefficient * d / length for d in drawn]
    pushed = [(h[u] - goal[u]) ** 2 for h in FixedTerms.HIDDEN for u in range(2)]
    kept = [
        (h[u] - r[u]) ** 2
        for h, r in zip(FixedTerms.RETAIN_HIDDEN, FixedTerms.RETAIN_REFERENCE_HIDDEN, strict=True)
        for u in range(2)
    ]
    return sum(pushed) / len(pushed) + keep * sum(kept) / len(kept)


def uniform_by_hand(keep: float) -> float:
    """KL of NOW from equal probabilities, and the retain batch's KL."""
    each = [sum(math.log(1 / 3 / p) / 3 for p in now) for now in FixedTerms.NOW]
    return sum(each) / len(each) + keep * FixedTerms.RETAIN_KL


CLOSED_FORMS = {
    "BadTeacher": uniform_by_hand(1.0),
    "RMU": rmu_by_hand(6.5, 100.0),
    "SalUn": FixedTerms.PREFERRED_NLL,
    "GA": -2.0,
    "GDR": 2.0,
    "relabel": 2.0,
    "TV": 2.0,
    "NPO": npo_by_hand(0.1),
    "SimNPO": simnpo_by_hand(2.5, 0.0),
    "WGA": weighted_by_hand(lambda p: p),
    "SatImp": weighted_by_hand(lambda p: p**5 * (1 - p)),
    "CE-U": taught_by_hand(FixedTerms.NOW, math.inf),
    "DPO": dpo_by_hand(0.1),
    "UNDIAL": taught_by_hand(FixedTerms.BEFORE, 10.0),
}
REGULARISER_VALUES = {"KLN": FixedTerms.RETAIN_KL, "GDN": FixedTerms.RETAIN_NLL}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_closed_form(name: str) -> None:
    family, _, regulariser = name.partition("_")
    expected = CLOSED_FORMS[family] + 0.7 * REGULARISER_VALUES.get(regulariser, 0.0)
    loss = method(name, retain_weight=0.7).loss([FixedTerms()])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


IMPORTANCE = Importance(
    {"w": torch.tensor([8.0, 1.0, 0.0, 40.0])}, {"w": torch.tensor([1.0, 1.0, 0.0, 0.5])}
)
START = {"w": torch.tensor([2.0, 3.0, 5.0, -7.0])}


def test_ssd_dampens_what_matters_more_for_the_target() -> None:
    found = method("SSD", selection=4.0, dampening=2.0)
    edited = found.method.edit(START, IMPORTANCE, found.config, torch.Generator())
    assert edited["w"].tolist() == pytest.approx([2 * 2 * 1 / 8, 3.0, 5.0, -7 * 2 * 0.5 / 40])


def test_ssd_never_makes_a_weight_larger() -> None:
    found = method("SSD", selection=0.5, dampening=100.0)
    edited = found.method.edit(START, IMPORTANCE, found.config, torch.Generator())
    assert edited["w"].tolist() == START["w"].tolist()


def test_fisher_adds_noise_by_the_fourth_root_of_what_matters_for_the_rest() -> None:
    found = method("Fisher", scale=0.1, least=1e-2)
    size = 200_000
    retain = torch.tensor([16.0]).repeat(size)
    both = Importance({}, {"a": retain, "b": 0 * retain})
    start = {"a": torch.full((size,), 3.0), "b": torch.zeros(size)}
    edited = found.method.edit(start, both, found.config, torch.Generator().manual_seed(0))
    again = found.method.edit(start, both, found.config, torch.Generator().manual_seed(0))
    assert edited["a"].equal(again["a"])
    assert float(edited["a"].mean()) == pytest.approx(3.0, abs=1e-3)
    assert float(edited["a"].std()) == pytest.approx(0.1 / 2, rel=0.01)
    assert float(edited["b"].std()) == pytest.approx(0.1 * 100**0.25, rel=0.01)


@pytest.mark.parametrize("beta", [0.05, 1.0, 4.0])
def test_npo_at_any_beta(beta: float) -> None:
    loss = method("NPO", beta=beta).loss([FixedTerms()])
    assert float(loss.detach()) == pytest.approx(npo_by_hand(beta), rel=1e-12)


@pytest.mark.parametrize(("beta", "gamma"), [(0.5, 0.0), (4.0, 1.5)])
def test_simnpo_at_any_beta_and_gamma(beta: float, gamma: float) -> None:
    loss = method("SimNPO", beta=beta, gamma=gamma).loss([FixedTerms()])
    assert float(loss.detach()) == pytest.approx(simnpo_by_hand(beta, gamma), rel=1e-12)


def test_a_weight_of_one_is_gradient_ascent() -> None:
    tokens = [token for sample in FixedTerms.TOKENS for token in sample]
    for name, settings in (("WGA", {"alpha": 0.0}), ("SatImp", {"beta1": 0.0, "beta2": 0.0})):
        loss = method(name, **settings).loss([FixedTerms()])
        assert float(loss.detach()) == pytest.approx(sum(tokens) / len(tokens))


@pytest.mark.parametrize("name", ["WGA", "SatImp", "CE-U", "UNDIAL"])
def test_weights_and_teachers_are_constants(name: str) -> None:
    """The gradient is that of the loss by hand with weight or teacher held where it is."""
    terms = FixedTerms()
    method(name).loss([terms]).backward()
    assert terms.theta.grad is not None
    step = 1e-6

    def held(factor: float) -> float:
        if name in ("WGA", "SatImp"):
            weigh = {"WGA": lambda p: p, "SatImp": lambda p: p**5 * (1 - p)}[name]
            return weighted_by_hand(weigh) * factor
        total = 0.0
        probs_of = {"CE-U": (FixedTerms.NOW, math.inf), "UNDIAL": (FixedTerms.BEFORE, 10.0)}
        taught, strength = probs_of[name]
        for probs, now, label in zip(taught, FixedTerms.NOW, FixedTerms.LABELS, strict=True):
            lowered = [p * math.exp(-strength) if v == label else p for v, p in enumerate(probs)]
            powers = [q**factor for q in now]
            total -= sum(
                p / sum(lowered) * math.log(q / sum(powers))
                for p, q in zip(lowered, powers, strict=True)
            )
        return total / len(FixedTerms.NOW)

    slope = (held(1 + step) - held(1 - step)) / (2 * step)
    assert float(terms.theta.grad.sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", REGULARISED)
def test_a_regulariser_of_weight_zero_adds_nothing(name: str) -> None:
    plain = method(name.partition("_")[0]).loss([FixedTerms()])
    assert torch.equal(method(name, retain_weight=0.0).loss([FixedTerms()]), plain)


@pytest.mark.parametrize("name", [n for n in PLAIN if not methods.families()[n].retains])
def test_a_method_without_regulariser_asks_nothing_of_the_retain_set(name: str) -> None:
    terms = FixedTerms()
    method(name).loss([terms]).backward()
    assert terms.theta.grad is not None
    assert terms.theta.grad[3:5].tolist() == [0.0, 0.0]


def test_tv_steps_back_along_the_task_vector() -> None:
    family = methods.families()["TV"]
    assert family.finish is not None
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5]])}
    reached = {"a": torch.tensor([1.5, 1.0]), "b": torch.tensor([[0.5]])}
    found = family.finish(start, reached, family.config.model_validate({"scale": 2.0}))
    assert {n: t.tolist() for n, t in found.items()} == {"a": [0.0, 4.0], "b": [[0.5]]}


def test_tv_alone_finishes_and_gdr_and_relabel_take_random_answers() -> None:
    families = methods.families()
    assert {n for n, m in families.items() if m.finish is not None} == {"TV"}
    # A regulariser would be negated with the rest of the task vector.
    assert [name for name in methods.names() if name.startswith("TV")] == ["TV"]
    assert {n for n, m in families.items() if issubclass(m.config, RandomAnswerConfig)} == {
        *RANDOM, *PREFERRING,
    }  # fmt: skip
    assert {n for n, m in families.items() if m.prefers} == set(PREFERRING)


def test_retrain_alone_starts_from_scratch_and_takes_no_steps() -> None:
    families = methods.families()
    assert {n for n, m in families.items() if m.starts_from == "scratch"} == {"retrain"}
    neither = {n for n, m in families.items() if m.forget is None and m.edit is None}
    assert neither == {"retrain"}
    assert [n for n in methods.names() if n.startswith("retrain")] == ["retrain"]


class OtherTerms(FixedTerms):
    """A paraphrase: other numbers, and no retain terms of its own."""

    NLL = 5.0

    def retain_nll(self) -> Tensor:
        raise AssertionError("the regulariser is the target's")


def test_the_enhanced_loss_weighs_target_paraphrases_and_regulariser() -> None:
    enhanced = EnhancedConfig(target_weight=2.0, paraphrase_weight=3.0, paraphrases=2)
    choice = MethodChoice(name="GA_GDN", enhanced=enhanced, settings=(("retain_weight", 0.7),))
    loss = methods.resolve(choice).loss([FixedTerms(), OtherTerms(), FixedTerms()])
    mean = -(OtherTerms.NLL + FixedTerms.NLL) / 2
    expected = -2 * FixedTerms.NLL + 3 * mean + 0.7 * FixedTerms.RETAIN_NLL
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


def test_the_loss_of_nearest_samples_is_a_mean_with_the_targets() -> None:
    enhanced = EnhancedConfig(gamma=0, nearest=1, paraphrases=1, paraphrase_weight=3.0)
    method = methods.resolve(MethodChoice(name="GA", enhanced=enhanced))
    loss = method.loss([FixedTerms(), OtherTerms(), FixedTerms()])
    expected = -(FixedTerms.NLL + OtherTerms.NLL) / 2 - 3 * FixedTerms.NLL
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


def test_a_method_without_steps_cannot_be_enhanced_by_noise() -> None:
    with pytest.raises(UsageError, match="retrain takes no steps"):
        methods.resolve(MethodChoice(name="retrain", enhanced=EnhancedConfig()))


def test_the_methods_of_the_paper_are_there() -> None:
    paper = ("GA_KLN", "GA_GDN", "NPO_KLN", "NPO_GDN", "GDR", "GDR_KLN", "GDR_GDN", "TV")
    assert set(paper) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_the_round_trip(name: str) -> None:
    config = method(name, learning_rate=3e-6, steps=3).config
    assert (config.learning_rate, config.steps) == (3e-6, 3)
    dumped = json.loads(config.model_dump_json())
    assert type(config).model_validate(dumped) == config
    again = MethodChoice(name=name, settings=tuple(sorted(dumped.items())))
    assert methods.resolve(again).payload(1) == method(name, learning_rate=3e-6, steps=3).payload(1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("setting", "value"), [("stepz", 3), ("steps", "many"), ("learning_rate", -1.0), ("steps", 0)]
)
def test_a_wrong_setting_is_named(name: str, setting: str, value: str | float) -> None:
    with pytest.raises(UsageError, match=rf"methods: {name}: setting '{setting}'.*known settings"):
        method(name, **{setting: value})


@pytest.mark.parametrize("name", ["XY", "GA_XY", "ga", "GA_KLN_GDN"])
def test_an_unknown_method_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown method '{name}'; known: .*GA_KLN"):
        method(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_payload_says_all_that_decides_a_result(name: str) -> None:
    resolved = method(name)
    payload = resolved.payload(1)
    assert payload == {
        "family": name.partition("_")[0],
        "version": resolved.method.version,
        "regulariser": name.partition("_")[2],
        "config": {n: getattr(resolved.config, n) for n in type(resolved.config).model_fields},
        "enhanced": None,
    }
    newer = dataclasses.replace(
        resolved, method=dataclasses.replace(resolved.method, version=resolved.method.version + 1)
    )
    assert newer.payload(1) != payload


def test_no_two_methods_share_a_payload() -> None:
    payloads = {json.dumps(method(name).payload(1), sort_keys=True) for name in NAMES}
    assert len(payloads) == len(NAMES)
