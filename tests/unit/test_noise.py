"""Noise on hidden states: where it is added, how large it is, and that gamma 0 changes nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from distforget import schemas
from distforget.errors import UsageError
from distforget.method_choice import EnhancedConfig
from distforget.models import PromptConfig
from distforget.study import VerifyConfig
from distforget.tracks.base import Noise, terms_of_one
from distforget.tracks.text.encoding import Encoder
from distforget.tracks.text.learner import TextLearner
from distforget.tracks.text.models import load_model, load_tokenizer
from distforget.tracks.text.noise import added, draw, layers_of
from tests.asking import said
from tests.conftest import make_tiny_model

ARCHITECTURES = ("llama", "gpt_neo", "opt")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def learner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TextLearner:
    folder = tmp_path_factory.mktemp(request.param)
    make_tiny_model(folder, request.param, chat=False)
    encoder = Encoder(load_tokenizer(folder), PromptConfig())
    return TextLearner(load_model(folder, "float32", "cpu"), encoder, VerifyConfig())


def noise(gamma: float = 0.5, layer: int = 1, about: str = "x") -> Noise:
    return Noise(EnhancedConfig(gamma=gamma, layer=layer, sigma=2.0), 0, (about,))


def samples() -> pa.Table:
    rows = [
        {
            "dataset": "d", "sample_id": i, "role": "target", "target_index": i + 1,
            "similar_rank": None, "question": "Where" + " on earth" * i, "answer": "Here" * (i + 1),
        }
        for i in range(3)
    ]  # fmt: skip
    return schemas.from_rows("samples", rows)


def test_it_has_the_size_asked_for_and_none_on_padding(learner: TextLearner) -> None:
    found = draw(learner.module, [noise(), None, noise()], [300, 400, 200], 0)
    (noise_BTH,) = found.values()
    assert noise_BTH.shape == (3, 400, learner.module.config.hidden_size)
    assert float(noise_BTH[0, :100].abs().max()) == 0.0
    assert float(noise_BTH[1].abs().max()) == 0.0
    assert float(noise_BTH[0, 100:].std()) == pytest.approx(0.5 * 2.0, rel=0.05)


def test_a_row_is_drawn_alike_in_any_batch_and_anew_at_each_step(learner: TextLearner) -> None:
    mine = noise()
    alone = draw(learner.module, [mine], [20], 3)[1][0]
    among = draw(learner.module, [noise(about="y"), mine], [50, 20], 3)[1][1]
    assert torch.equal(among[30:], alone)
    assert not torch.equal(draw(learner.module, [mine], [20], 4)[1][0], alone)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_gives_its_output_with_the_noise(learner: TextLearner, layer: int) -> None:
    model = learner.module
    batch = learner.encoder.batch(learner.encode(samples()), [0, 1])
    noise_BTH = torch.randn(2, batch.input_ids_BT.shape[1], model.config.hidden_size)

    def states() -> list[torch.Tensor]:
        """What each layer is given, and the logits."""
        found: list[torch.Tensor] = []
        inputs = [
            inner.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
            for inner in layers_of(model)
        ]
        with torch.no_grad():
            ids, mask = batch.input_ids_BT, batch.attention_mask_BT
            found.append(model(input_ids=ids, attention_mask=mask).logits)
        for handle in inputs:
            handle.remove()
        return found

    before = states()
    with added(model, {layer: noise_BTH}):
        noised = states()
    for i, (mine, plain) in enumerate(zip(noised, before, strict=True)):
        assert torch.equal(mine, plain) == (i < layer)
    if layer < model.config.num_hidden_layers:  # OPT and GPT-Neo add positions after embedding
        torch.testing.assert_close(noised[layer], before[layer] + noise_BTH)
    assert all(torch.equal(a, b) for a, b in zip(states(), before, strict=True))


def test_gamma_0_gives_the_terms_of_the_plain_method(learner: TextLearner) -> None:
    forget = learner.encode(samples().slice(1, 1))
    (plain,) = terms_of_one(learner, forget, None)(0)
    (still,) = terms_of_one(learner, forget, None, noise(gamma=0.0))(0)
    (moved,) = terms_of_one(learner, forget, None, noise())(0)
    assert torch.equal(still.target_nll(), plain.target_nll())
    assert not torch.equal(moved.target_nll(), plain.target_nll())
    reference = moved.target_reference_logprobs_B()
    torch.testing.assert_close(reference, plain.target_logprobs_B().detach())


def test_each_row_of_a_forget_set_has_its_own_terms(learner: TextLearner) -> None:
    together = terms_of_one(learner, learner.encode(samples()), None)(0)
    alone = [
        terms_of_one(learner, learner.encode(samples().slice(i, 1)), None)(0)[0] for i in range(3)
    ]
    for mine, single in zip(together, alone, strict=True):
        torch.testing.assert_close(mine.target_nll(), single.target_nll())


def test_a_layer_that_is_not_there_is_named(learner: TextLearner) -> None:
    with pytest.raises(UsageError, match=r"enhanced\.layer is 9.*2 layers"):
        draw(learner.module, [noise(layer=9)], [5], 0)


def test_asking_has_no_noise(learner: TextLearner, tmp_path: Path) -> None:
    before = said(learner, samples())
    terms_of_one(learner, learner.encode(samples()), None, noise(gamma=9.0))(0)[0].target_nll()
    assert said(learner, samples()) == before
