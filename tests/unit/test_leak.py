"""Drawn answers and what they leak, against plain loops and exact probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from distforget import cell
from distforget.models import PromptConfig
from distforget.probes.leak import PROBE, LeakConfig
from distforget.study import Study, VerifyConfig
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.generation import drawing, generate
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from distforget.tracks.text.stored import StoredEvidence
from tests.conftest import make_tiny_model
from tests.contract.test_methods import samples
from tests.unit.test_study import CONTENT, changed, keys

FACTS = [["Bern", "1950"], ["Oslo"], None]
DRAWN = [["In Bern.", "1950, in Bern", "no"], ["no", "no", "no"], ["Bern", "x", "y"]]


class Evidence:
    samples = pa.table({"facts": pa.array(FACTS, pa.list_(pa.string()))})

    def __init__(self, drawn: list[list[str] | None]) -> None:
        self.drawn = drawn

    def drawn_answers(self) -> list[list[str] | None]:
        return self.drawn


def test_leaks_are_counted_draw_by_draw() -> None:
    found = PROBE.run(Evidence([*DRAWN]), LeakConfig()).values
    assert found["leak_at_k"].tolist() == [1.0, 0.0, None]
    assert found["leak_mean"].tolist() == [pytest.approx((0.5 + 1 + 0) / 3), 0.0, None]
    assert found["leak_probability"].tolist() == [pytest.approx(1 / 3), 0.0, None]
    assert PROBE.run(Evidence([None, None, None]), LeakConfig()).values == {}


def learner_of(folder: Path, drawn: int, temperature: float = 1.0) -> TextLearner:
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    verify = VerifyConfig(max_new_tokens=3, drawn=drawn, temperature=temperature, batch_size=7)
    return TextLearner(load_model(folder, "float32", "cpu"), encoder, verify)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


def test_answers_are_drawn_by_question_and_number_not_by_batch(folder: Path) -> None:
    learner, rows = learner_of(folder, 3), samples().slice(0, 4)
    found = learner.evidence(rows).drawn_answers()
    alone = [learner.evidence(rows.slice(i, 1)).drawn_answers()[0] for i in range(4)]
    assert found == alone
    assert all(len(of_one) == 3 and len(set(of_one)) > 1 for of_one in found if of_one)
    assert found[0] != found[1]
    assert learner_of(folder, 0).evidence(rows).drawn_answers() == [None] * 4
    identity = {
        **dict.fromkeys(("dose", "seed", "method", "variant", "unlearned")),
        "track": "text", "dataset": "d", "model": "m", "phase": "pre_finetune", "attack": "none",
    }  # fmt: skip
    stored = StoredEvidence(rows, cell.ask(learner, rows, identity), samples())
    assert stored.drawn_answers() == found


@pytest.mark.parametrize("temperature", [0.02, 0.7])
def test_first_tokens_come_as_often_as_their_probability_says(
    temperature: float, folder: Path
) -> None:
    module = load_model(folder, "float32", "cpu")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in module.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.1, generator=draw)
        logits = module(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1)
    count = 3000
    found = generate(
        module, [[5, 6, 7]] * count, max_new_tokens=1, batch_size=500, ends=[0], pad_token_id=0,
        choose=drawing(range(count), temperature),
    )  # fmt: skip
    seen = np.bincount([row[0] for row in found.tokens], minlength=len(expected)) / count
    top = float(expected.max())
    error = 4 * (top * (1 - top) / count) ** 0.5 + 1e-9
    assert abs(seen[int(expected.argmax())] - top) <= error
    assert np.abs(seen - expected.numpy()).max() < 0.04


def test_drawing_changes_keys_and_no_drawing_leaves_them() -> None:
    several = changed("verify.drawn", 4)
    assert set(keys(several)) != set(keys(CONTENT))
    cooler = changed("verify.temperature", 0.5, several)
    assert set(keys(cooler)) != set(keys(several))
    assert keys(changed("verify.temperature", 0.5)) == keys(CONTENT)
    assert Study.model_validate(CONTENT).verify.drawn == 0
