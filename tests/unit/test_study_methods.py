"""What a study's methods ask of its data and name, and what thereby is in a step's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distforget.errors import UsageError
from distforget.plan import Plan
from distforget.study import Study
from tests.unit.test_study import CONTENT, IMAGES, changed, plan_of


def plan_with(**changes: Any) -> Plan:
    return plan_of({**CONTENT, **changes})


def test_a_placebo_depends_on_what_is_retained() -> None:
    """It is drawn from the samples that are not, whether its method retains any or not."""
    plans = [
        plan_with(methods=["TV"], placebo_targets=1, unlearn={"retain_batches": count})
        for count in (2, 3)
    ]
    same = {
        one.about["variant"]: one.key == other.key
        for one, other in zip(plans[0].cells, plans[1].cells, strict=True)
    }
    assert same == {"plain": True, "placebo": False}


def test_reference_answers_are_planned_only_for_methods_that_retain() -> None:
    assert plan_with(methods=["TV", "GDR"]).references == ()
    assert len(plan_with(methods=["TV", "GDR_KLN"]).references) == 2


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer.model", "vocab.txt"])
def test_every_file_that_is_read_of_a_model_is_in_its_key(file: str, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", file):
        (tmp_path / name).write_text("one")
    models = [{"name": "m", "base": str(tmp_path)}]
    before = plan_with(models=models).models[0].key
    (tmp_path / "README.md").write_text("nothing that decides")
    assert plan_with(models=models).models[0].key == before
    (tmp_path / file).write_text("two")
    assert plan_with(models=models).models[0].key != before


NOISE_ALONE = {"gamma": 0.3, "paraphrases": 0}


def test_noise_alone_is_a_variant_of_its_own_kind() -> None:
    study = Study.model_validate(
        {**CONTENT, "methods": [{"name": "GA_KLN", "enhanced": NOISE_ALONE}]}
    )
    assert study.methods[0].variant_name == "enhanced-low"


@pytest.mark.parametrize(
    ("variant", "enhanced"), [("enhanced-a", NOISE_ALONE), ("enhanced-low", {"paraphrases": 2})]
)
def test_a_variants_name_says_which_scheme_it_is(variant: str, enhanced: dict[str, Any]) -> None:
    method = {"name": "GA_KLN", "variant": variant, "enhanced": enhanced}
    with pytest.raises(ValueError, match="enhanced-low"):
        Study.model_validate({**CONTENT, "methods": [method]})


def test_targets_alone_are_data_enough_for_methods_that_retain_nothing() -> None:
    content = changed("data.others", 0)
    with pytest.raises(ValueError, match=r"GA_KLN: dose 0 .* raise data.others"):
        Study.model_validate(content)
    assert plan_of({**content, "methods": ["GDR", "TV"]}).cells


def test_methods_that_do_not_fit_a_study_are_refused() -> None:
    with pytest.raises(UsageError, match="RMU is for text, but the data are of image"):
        plan_of(changed("methods", ["RMU"], IMAGES))
    content = {**changed("methods", ["SSD"]), "adapter": None}
    assert {step.about["method"] for step in plan_of(content).cells} == {"SSD"}
    with pytest.raises(UsageError, match="SSD changes whole weights, but the study has adapters"):
        plan_of({**content, "adapter": {"rank": 2}})
