"""Statistics of answer tokens and the probes made of them, against plain loops."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distforget import losses
from distforget.probes import Tokens, columns_of, tokens_of
from distforget.probes.fluency import PROBE as FLUENCY
from distforget.probes.fluency import FluencyConfig
from distforget.probes.membership import PROBE as MEMBERSHIP
from distforget.probes.membership import MembershipConfig
from distforget.probes.memorisation import PROBE as MEMORISATION
from distforget.probes.memorisation import MemorisationConfig


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 6), st.sampled_from([0.3, 3.0]))
def test_statistics_are_those_of_a_plain_loop(seed: int, B: int, T: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, T, 5, generator=draw, dtype=torch.float64) * scale
    labels = torch.randint(0, 5, (B, T), generator=draw)
    labels[torch.rand(B, T, generator=draw) < 0.4] = losses.IGNORED
    found = losses.token_statistics(logits, labels)
    for b in range(B):
        wanted = []
        for t in range(T - 1):
            label = int(labels[b, t + 1])
            if label != losses.IGNORED:
                raw = logits[b, t].tolist()
                total = math.log(math.fsum(math.exp(x) for x in raw))
                logprobs = [x - total for x in raw]
                mean = sum(math.exp(p) * p for p in logprobs)
                square = sum(math.exp(p) * (p - mean) ** 2 for p in logprobs)
                margin = logprobs[label] - max(logprobs)
                wanted.append([logprobs[label], margin, mean, math.sqrt(square)])
        assert found[b].tolist() == [pytest.approx(row, abs=1e-9) for row in wanted]


def test_many_tokens_are_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 9, 4, generator=draw), torch.zeros(2, 9, dtype=torch.long)
    whole = losses.token_statistics(logits, labels)
    monkeypatch.setattr(losses, "TOKENS_AT_ONCE", 3)
    parts = losses.token_statistics(logits, labels)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_a_diverged_model_chooses_nothing() -> None:
    logits = torch.full((1, 2, 4), math.nan)
    ((row,),) = losses.token_statistics(logits, torch.zeros(1, 2, dtype=torch.long))
    assert row.isnan().all()
    found = scores(MEMORISATION, MemorisationConfig(), [tokens_of(row[None].numpy())], ["a"])
    assert found["exact_memorisation"] == found["extraction_strength"] == [0.0]


class Evidence:
    """What probes ask, of these tokens."""

    def __init__(self, tokens: list[Tokens | None], answers: list[str]) -> None:
        self.samples = pa.table({"answer": answers})
        self._tokens = tokens

    def tokens(self) -> list[Tokens | None]:
        return self._tokens


def scores(probe: Any, config: Any, tokens: list[Tokens | None], answers: list[str]) -> Any:
    return probe.run(Evidence(tokens, answers), config).values


def tokens(logprobs: list[float], margins: list[float], mean: float, deviation: float) -> Tokens:
    rows = [[p, m, mean, deviation] for p, m in zip(logprobs, margins, strict=True)]
    return tokens_of(np.asarray(rows, np.float32))


@pytest.mark.parametrize(
    ("margins", "exact", "strength"),
    [
        ([0, 0, 0, 0], 1.0, 1.0),
        ([0, -2, 0, 0], 0.75, 0.5),
        ([-3, 0, 0, 0], 0.75, 0.75),
        ([0, 0, 0, -1e-4], 0.75, 0.0),
    ],
)
def test_memorisation(margins: list[float], exact: float, strength: float) -> None:
    one = tokens([-1.0] * 4, margins, 0, 1)
    found = scores(MEMORISATION, MemorisationConfig(), [one, None], ["a", "b"])
    assert found["exact_memorisation"].tolist() == [exact, None]
    assert found["extraction_strength"].tolist() == [strength, None]


def test_membership_scores_against_plain_loops() -> None:
    logprobs = [-0.1, -5.0, -0.5, -3.0, -0.2, -0.3, -0.4, -2.0, -0.6, -0.7]
    one = tokens(logprobs, [0] * 10, -1.5, 0.5)
    answer = "It is a long answer, it is a long answer."
    found = scores(MEMBERSHIP, MembershipConfig(), [one], [answer])
    assert found["min_k"][0] == pytest.approx((-5.0 - 3.0) / 2)
    assert found["min_k_plus"][0] == pytest.approx(((-5.0 + 1.5) / 0.5 + (-3.0 + 1.5) / 0.5) / 2)
    assert found["zlib"][0] == pytest.approx(sum(logprobs) / len(zlib.compress(answer.encode())))
    half = scores(MEMBERSHIP, MembershipConfig(share=0.5), [one], [answer])
    assert half["min_k"][0] == pytest.approx(sum(sorted(logprobs)[:5]) / 5)


def test_a_sure_and_a_diverged_model_have_finite_scores() -> None:
    sure = tokens([0.0, 0.0], [0, 0], 0.0, 0.0)
    gone = tokens([math.nan, math.nan], [math.nan, math.nan], math.nan, math.nan)
    found = scores(MEMBERSHIP, MembershipConfig(), [sure, gone], ["a", "b"])
    for values in found.values():
        assert np.isfinite(values).all()
        assert values[1] < values[0]


def test_samples_with_choices_have_no_tokens() -> None:
    assert columns_of(None) == [None] * 4
    assert scores(MEMBERSHIP, MembershipConfig(), [None], ["a"]) == {}


@pytest.mark.parametrize(
    ("answer", "repeated", "empty"),
    [
        ("in the town in the town in", 1 - 3 / 6, 0.0),
        ("It is so.", 0.0, 0.0),
        ("so", 0.0, 0.0),
        ("", 0.0, 1.0),
        ("…!", 0.0, 1.0),
        ("the The THE the", 1 - 1 / 3, 0.0),
    ],
)
def test_answers_that_go_round_in_circles(answer: str, repeated: float, empty: float) -> None:
    class Said:
        samples = pa.table({"answer": ["x", "y"], "choices": pa.array([None, ["y"]])})

        def answers(self) -> list[str]:
            return [answer, "y"]

    found = FLUENCY.run(Said(), FluencyConfig()).values
    assert found["repetition"].tolist() == [pytest.approx(repeated), None]
    assert found["empty_answer"].tolist() == [empty, None]
