"""Wrong answers and the truth ratio, against plain loops over a plain model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from distforget import cell, schemas
from distforget.errors import UsageError
from distforget.models import PromptConfig
from distforget.probes import Tokens
from distforget.probes.truth import LARGEST, PROBE, TruthConfig
from distforget.similarity import similarity_of
from distforget.sources import Wanted
from distforget.sources.biographies import SOURCE, BiographiesConfig
from distforget.sources.file import SOURCE as FILE
from distforget.study import Study
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from distforget.tracks.text.stored import StoredEvidence
from distforget.words import unicode_words
from tests.contract.test_methods import samples, study
from tests.unit.test_tokens import tokens

WRONG = [["In the city.", "In a wood."], None, ["He was born in 1871."]]


class Evidence:
    def __init__(self, own: list[Tokens | None], wrong: list[list[float] | None]) -> None:
        self.samples = pa.table({"answer": ["a"] * len(own)})
        self.own, self.wrong = own, wrong

    def tokens(self) -> list[Tokens | None]:
        return self.own

    def wrong_logprobs(self) -> list[np.ndarray | None]:
        return [None if w is None else np.asarray(w, np.float32) for w in self.wrong]


def scored(own: list[Tokens | None], wrong: list[list[float] | None]) -> dict[str, list[float]]:
    found = PROBE.run(Evidence(own, wrong), TruthConfig()).values
    return {name: values.tolist() for name, values in found.items()}


def test_the_ratio_is_that_of_the_definition() -> None:
    own = tokens([-1.0, -2.0, -0.5], [0, 0, 0], 0, 1)
    found = scored([own, own, None], [[-2.0, -4.0], None, None])
    true = (math.exp(-1.0) * math.exp(-2.0) * math.exp(-0.5)) ** (1 / 3)
    wrong = math.sqrt(math.exp(-2.0) * math.exp(-4.0))
    assert found["truth_ratio"] == [pytest.approx(wrong / true, rel=1e-6), None, None]
    assert found["truth_share"][0] == pytest.approx(true / (true + wrong), rel=1e-6)
    assert scored([None], [None]) == {}


@pytest.mark.parametrize("wrong", [[math.nan], [800.0]])
def test_a_diverged_model_prefers_the_wrong_answers(wrong: list[float]) -> None:
    found = scored([tokens([-900.0], [0], 0, 1)], [wrong])
    assert found["truth_ratio"] == [LARGEST]


def test_a_model_gives_wrong_answers_what_a_plain_loop_says(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    encoder = Encoder(tokenizer, PromptConfig())
    module = load_model(tiny_model, "float32", "cpu")
    learner = TextLearner(module, encoder, study().verify)
    rows = samples().slice(0, 3)
    place = rows.schema.get_field_index("wrong_answers")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(WRONG))
    found = learner.evidence(rows).wrong_logprobs()
    for question, texts, of_one in zip(rows["question"].to_pylist(), WRONG, found, strict=True):
        if texts is None:
            assert of_one is None
            continue
        (prompt,) = encoder.prompts([question])
        for text, mean in zip(texts, of_one, strict=True):
            (answer,) = encoder.answers([text])
            whole = torch.tensor([[*prompt, *answer]])
            logprobs = module(whole).logits[0].log_softmax(-1)
            each = [
                float(logprobs[len(prompt) + i - 1, token].detach())
                for i, token in enumerate(answer)
            ]
            assert mean == pytest.approx(sum(each) / len(each), abs=1e-4)
    identity = {
        **dict.fromkeys(("dose", "seed", "method", "variant", "unlearned")),
        "track": "text", "dataset": "d", "model": "m", "phase": "pre_finetune", "attack": "none",
    }  # fmt: skip
    stored = StoredEvidence(rows, cell.ask(learner, rows, identity), samples())
    again = stored.wrong_logprobs()
    assert again[1] is None
    assert again[0] == pytest.approx(found[0])


def test_made_up_people_have_wrong_answers_that_differ_in_the_facts_alone() -> None:
    texts = SOURCE.read_texts(BiographiesConfig(), Wanted(6, 1, 0), 3)
    config = Study.model_validate(
        {"name": "s", "models": [{"name": "m", "base": "b"}], "methods": ["GA"]}
    ).data.similar
    rows = texts.families.to_pylist()
    rows += similarity_of(config).make(texts.families, config, 3).to_pylist()
    assert len({row["role"] for row in rows}) >= 3
    for row in rows:
        a, b = row["facts"]
        assert len(set(row["wrong_answers"])) == 3
        frame = unicode_words(row["answer"].replace(a, "").replace(b, ""))
        for wrong in row["wrong_answers"]:
            assert a not in wrong
            assert b not in wrong
            left = unicode_words(wrong)
            for word in frame:
                assert word in left, (word, wrong)
    of_first = [r for r in rows if r["target_index"] == 1 and r["role"] in ("target", "similar")]
    words = [set(unicode_words(r["wrong_answers"][0])) for r in of_first]
    assert set.intersection(*words) - {"in", "the", "of"}  # the same wrong facts, restated


def file_of(folder: Path, wrong: str) -> pa.Table:
    path = folder / "pairs.jsonl"
    path.write_text(
        '{"question": "Where?", "answer": "In Bern.", "role": "target", "off": ' + wrong + "}\n"
    )
    config = FILE.config.model_validate(
        {"kind": "file", "path": str(path), "columns": {"wrong_answers": "off"}}
    )
    return FILE.read_texts(config, Wanted(1, 0, 0), 0).families


def test_wrong_answers_are_read_from_a_column(tmp_path: Path) -> None:
    assert file_of(tmp_path, '["In Rome.", "No."]')["wrong_answers"].to_pylist() == [
        ["In Rome.", "No."]
    ]
    assert file_of(tmp_path, "null")["wrong_answers"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [('["In Bern. "]', "is the answer"), ("[1]", "a list of texts"), ('["", "x"]', "empty")],
)
def test_bad_wrong_answers_are_refused(wrong: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"'off'.*{why}"):
        file_of(tmp_path, wrong)


def test_the_schema_says_what_they_are() -> None:
    assert schemas.arrow_schema("samples").field("wrong_answers").nullable
