"""Each setting is on one side: it decides a result and is in a key, or it does not and is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from distforget.draws import generator_seed, rng
from distforget.errors import UsageError
from distforget.loading import PRESETS, load_study
from distforget.parts import OneOf, Part
from distforget.placement import Placement
from distforget.plan import Plan, make_plan
from distforget.similarity import SimilarImages, SimilarTexts
from distforget.study import Study

CONTENT: dict[str, Any] = {
    "name": "s",
    "data": {
        "source": {"kind": "hub", "path": "some/data"},
        "targets": 3,
        "similar": {"per_target": 3, "paraphrases": 4},
    },
    "models": [{"name": "m", "base": "some/model"}],
    "adapter": {"rank": 2},
    "doses": [0, 2],
    "methods": [
        {"name": "GA_KLN", "settings": {"steps": 3}},
    ],
    "unlearn_targets": 2,
    "probes": [{"kind": "rouge"}],
}

IMAGES: dict[str, Any] = {
    **CONTENT,
    "data": {
        "source": {"kind": "hub_images", "path": "some/images"},
        "targets": 3,
        "similar": {"per_target": 3},
    },
    "models": [{"name": "m", "base": "mlp:8"}],
    "adapter": None,
    "probes": [{"kind": "reconstruction"}],
}

OF_IMAGES = {
    "data.similar.kind": {"data.similar": "noise"},
    "data.similar.block": 3,
    "data.similar.masked_fraction": 0.2,
    "data.per_class": 40,
    "data.unseen_per_class": 5,
    "data.source.image_column": "img",
    "data.source.label_column": "class",
    "models.base": "mlp:9",
    "methods.enhanced.nearest": {
        "methods.enhanced.nearest": 2, "methods.enhanced.gamma": 0,
        "methods.enhanced.paraphrases": 0,
    },
    "verify.unseen": 3,
    "fit.steps": 9,
    "fit.learning_rate": 0.1,
    "fit.weight_decay": 0.1,
    "fit.beta1": 0.1,
    "fit.beta2": 0.1,
    "fit.record_every": 9,
    "probes.steps": 9,
    "probes.learning_rate": 0.1,
    "probes.start_scale": 0.1,
    "probes.start_share": 0.1,
    "probes.sharpness_start": 1.0,
    "probes.sharpness_end": 9.0,
    "probes.range_weight": 0.2,
    "probes.sparse_weight": 0.2,
    "probes.sparse_width": 0.2,
    "probes.span": 0.2,
    "probes.restarts": 2,
    "probes.candidates_per_sample": 3.0,
}  # fmt: skip
"""Fields of image studies that decide a result: changed in IMAGES, not in CONTENT."""

LABELS: dict[str, Any] = {
    "name": "other",
    "data.name": "other",
    "data.source.root": None,  # where downloads lie; test_the_folder_of_downloads_changes_no_key
    "methods.variant": "slow",
    "models.name": "other",
    "verify.margin": 0.2,
    "verify.metric": "rouge1_recall",  # chosen by the analysis from scores that are all written
    "verify.batch_size": 3,  # how many rows are generated at once
}
"""Fields that name or choose, and decide no result, with another value for each."""

DECIDING: dict[str, Any] = {
    **dict.fromkeys(OF_IMAGES),  # test_a_field_of_images_changes_keys; some decide texts too
    "data.similar.sigma": None,  # test_sigma_changes_keys
    "seed": 5,
    "seeds": 2,
    # test_settings_of_probes_change_keys:
    "probes.length": None,
    "probes.share": None,
    "data.source.kind": {"data.source": "biographies"},
    "data.source.path": "other/data",
    "data.source.config": "other",
    "data.source.split": "validation",
    "data.source.revision": "v2",
    "data.source.columns.question": "prompt",
    "data.source.columns.answer": "response",
    "data.source.columns.role": "part",
    "data.source.columns.target_id": "of",
    "data.source.columns.facts": "said",
    "data.source.columns.wrong_answers": "off",
    "data.source.exchange": "first",
    "data.targets": 4,
    "data.similar.per_target": 4,
    "data.similar.paraphrases": 5,
    # tests/unit/test_paraphrase.py:
    "data.similar.rounds": None,
    "data.similar.meaning.embedder.dtype": None,
    "data.similar.meaning.embedder.path": None,
    "data.similar.meaning.entailment": None,
    "data.similar.meaning.entails": None,
    "data.similar.meaning.least": None,
    "data.similar.meaning.most": None,
    "data.similar.near_duplicates": None,
    "data.similar.question_prompt": None,
    "data.similar.prompt": None,
    "data.similar.queries": None,
    "data.similar.system": None,
    "data.similar.too_few": None,
    "data.similar.writer.concurrency": None,
    "data.similar.writer.gpus": None,
    "data.similar.writer.key_variable": None,
    "data.similar.writer.kind": None,
    "data.similar.writer.max_tokens": None,
    "data.similar.writer.model": None,
    "data.similar.writer.path": None,
    "data.similar.writer.requests_per_minute": None,
    "data.similar.writer.temperature": None,
    "data.similar.writer.timeout": None,
    "data.similar.writer.tries": None,
    "data.similar.writer.url": None,
    "data.others": 7,
    "data.neighbours": 2,
    "models.base": "other/model",
    "models.tuned.path": None,  # tests/system/test_given.py, as all of given models
    "models.tuned.dose": None,
    "models.unlearned.path": None,
    "models.unlearned.dose": None,
    "models.unlearned.targets": None,
    "models.unlearned.method": None,
    "models.prompt.style": "plain",
    "models.prompt.system": "Be brief.",
    "models.prompt.plain": "Q: {question} A: ",
    "dtype": "bfloat16",
    "doses": [0, 1],
    "methods.name": "GA_GDN",
    "methods.settings": {"steps": 4},
    "methods.targets": 1,
    "methods.models": None,  # test_a_method_may_be_for_some_models
    "methods.enhanced.gamma": 0.5,
    "methods.enhanced.sigma": 0.5,
    "methods.enhanced.layer": 1,
    "methods.enhanced.paraphrases": 2,
    "methods.enhanced.similar": [[1]],
    "methods.enhanced.target_weight": 0.5,
    "methods.enhanced.paraphrase_weight": 0.5,
    "placebo_targets": 1,
    "in_turn": [2],
    "attacks.kind": None,  # test_what_depends_on_a_field_is_done_again_and_nothing_else
    "attacks.bits": None,  # likewise
    # test_settings_of_attacks_change_keys:
    "attacks.batch_size": None,
    "attacks.group": None,
    "attacks.learning_rate": None,
    "attacks.rows": None,
    "attacks.percent": None,
    "attacks.steps": None,
    "attacks.shots": None,
    "attacks.rank": None,
    "unlearn_targets": 1,
    "adapter.rank": 4,
    "adapter.alpha": 2.0,
    "adapter.target_modules": ["q_proj"],
    "finetune.learning_rate": 3e-4,
    "finetune.weight_decay": 0.5,
    "finetune.warmup_steps": 9,
    "finetune.batch_size": 5,
    "finetune.max_epochs": 3,
    "finetune.stop_token_accuracy": 0.5,
    "finetune.stop_exact_rate": 0.5,
    "finetune.max_tokens": 99,
    "finetune.gradient_clip": 2.0,
    "unlearn.retain_batch_size": 2,
    "unlearn.retain_batches": 3,
    "verify.drawn": 2,
    "verify.temperature": None,  # tests/unit/test_leak.py
    "verify.max_new_tokens": 9,
    "verify.similar": 2,
    "verify.others": 3,
    "probes.kind": {"probes.kind": "likelihood", "verify.metric": "answer_probability"},
    "probes.metrics": ["rougeL_recall"],
    "probes.questions": None,  # test_questions_change_keys
    "probes.path": None,
    "probes.split": None,
    "probes.revision": None,
    "probes.words": "unicode",
    "probes.use_stemmer": False,
}
"""Fields that decide a result, with another value for each (or other values of several)."""


def fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """The dotted names of all fields, through models, unions and tuples of models."""
    found = set()
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation, *field.metadata)
        found |= {f for m in inner for f in fields(m, f"{prefix}{name}.")} or {f"{prefix}{name}"}
    return found


def models_in(*annotations: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for annotation in annotations:
        if isinstance(annotation, OneOf):
            found += annotation.configs
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += [] if annotation in (Part, SimilarTexts, SimilarImages) else [annotation]
        else:
            found += models_in(*get_args(annotation))
    return found


def changed(field: str, value: Any, base: dict[str, Any] = CONTENT) -> dict[str, Any]:
    """A study with another value in a field (or, given a dict of fields, in several)."""
    content = json.loads(json.dumps(base))
    several = isinstance(value, dict) and all("." in name for name in value) and value
    for name, new in (value if several else {field: value}).items():
        place: Any = content
        *parents, last = name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            place = place[0] if isinstance(place, list) else place
        place[last] = new
    return content


def keys(content: dict[str, Any]) -> list[str]:
    return [step.key for step in plan_of(content).steps()]


def plan_of(content: dict[str, Any]) -> Plan:
    return make_plan(Study.model_validate(content))


def test_each_field_of_a_study_is_on_one_side() -> None:
    assert fields(Study) == {*LABELS, *DECIDING}


@pytest.mark.parametrize(
    "attack",
    [
        {"kind": "relearn", "rows": "others"},
        {"kind": "relearn", "steps": 3},
        {"kind": "relearn", "learning_rate": 1e-3},
        {"kind": "relearn", "batch_size": 2},
        {"kind": "prune", "percent": 50},
        {"kind": "hint", "shots": 3},
        {"kind": "rephrase", "rank": 2},
        {"kind": "quantise", "group": 32},
    ],
)
def test_settings_of_attacks_change_keys(attack: dict[str, Any]) -> None:
    default = keys({**CONTENT, "attacks": [attack["kind"]]})
    assert set(keys({**CONTENT, "attacks": [attack]})) != set(default)


@pytest.mark.parametrize(
    ("kind", "setting", "values"),
    [("membership", "share", (0.2, 0.4)), ("fluency", "length", (2, 3))],
)
def test_settings_of_probes_change_keys(kind: str, setting: str, values: Any) -> None:
    one, other = (
        keys({**CONTENT, "probes": ["rouge", {"kind": kind, setting: value}]}) for value in values
    )
    assert set(one) != set(other)


@pytest.mark.parametrize("field", [f for f in DECIDING if DECIDING[f] is not None])
def test_a_field_that_decides_changes_keys(field: str) -> None:
    content = changed(field, DECIDING[field])
    assert Study.model_validate(content) != Study.model_validate(CONTENT)
    assert set(keys(content)) != set(keys(CONTENT))


@pytest.mark.parametrize("field", OF_IMAGES)
def test_a_field_of_images_changes_keys(field: str) -> None:
    assert set(keys(changed(field, OF_IMAGES[field], IMAGES))) != set(keys(IMAGES))


@pytest.mark.parametrize(
    "change", [{"questions": 7}, {"path": "other/q"}, {"split": "test"}, {"revision": "v2"}]
)
def test_questions_change_keys(change: dict[str, Any]) -> None:
    def asked(**more: Any) -> Plan:
        choices = {"kind": "choices", "questions": 3, **more}
        return plan_of(changed("probes", ["rouge", choices]))

    assert asked(**change).dataset.key != asked().dataset.key
    assert asked(questions=0).dataset.key == plan_of(CONTENT).dataset.key


def noisy(sigma: float) -> dict[str, Any]:
    return changed("data.similar", {"kind": "noise", "sigma": sigma}, IMAGES)


def test_sigma_changes_keys() -> None:
    assert set(keys(noisy(0.1))) != set(keys(noisy(0.2)))


def test_the_folder_of_downloads_changes_no_key() -> None:
    downloaded = {"kind": "torchvision", "path": "MNIST"}
    here, there = (
        keys(changed("data.source", {**downloaded, "root": root}, IMAGES)) for root in ("a", "b")
    )
    assert here == there


@pytest.mark.parametrize("field", [f for f in LABELS if LABELS[f] is not None])
def test_a_label_changes_no_key(field: str) -> None:
    content = changed(field, LABELS[field])
    assert Study.model_validate(content) != Study.model_validate(CONTENT)
    assert keys(content) == keys(CONTENT)


@pytest.mark.parametrize(("content", "track"), [(CONTENT, "text"), (IMAGES, "image")])
def test_the_track_is_in_every_payload(content: dict[str, Any], track: str) -> None:
    steps = [s for s in plan_of(content).steps() if s.stage != "model"]  # the same for every track
    assert all(step.config["track"] == track for step in steps)


STAGES = ("dataset", "model", "finetune", "reference", "ask", "cell", "attack", "probe")


@pytest.mark.parametrize(
    ("field", "value", "stages"),
    [
        ("seed", 5, {"dataset", "finetune", "reference", "ask", "cell", "probe"}),
        (
            "models.base",
            "some/model@v2",
            {"model", "finetune", "reference", "ask", "cell", "probe"},
        ),
        ("finetune.learning_rate", 3e-4, {"finetune", "reference", "ask", "cell", "probe"}),
        ("unlearn.retain_batches", 3, {"reference", "cell", "probe"}),
        ("verify.max_new_tokens", 9, {"ask", "cell", "probe"}),
        ("methods.settings", {"steps": 4}, {"cell", "probe"}),
        ("probes", [{"kind": "rouge"}, "likelihood"], {"probe"}),
        ("attacks", ["quantise", {"kind": "quantise", "bits": 3}], {"attack", "probe"}),
    ],
)
def test_what_depends_on_a_field_is_done_again_and_nothing_else(
    field: str, value: Any, stages: set[str]
) -> None:
    old, new = plan_of(CONTENT), plan_of(changed(field, value))
    kept = {s.key for s in old.steps()}
    again = {step.stage for step in new.steps() if step.key not in kept}
    assert again == stages
    # Of asks, the floor does not depend on fine-tuning: it has the base model alone.
    floors = [s for s in new.asks if s.about["phase"] == "pre_finetune" and s.key in kept]
    assert len(floors) == (field not in ("seed", "models.base", "verify.max_new_tokens"))


def test_no_field_of_a_placement_is_in_a_payload() -> None:
    def names(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from value
            for inner in value.values():
                yield from names(inner)

    found = {n for step in plan_of(CONTENT).steps() for n in names(json.loads(step.payload))}
    assert {"config", "inputs", "seed"} <= found
    assert found.isdisjoint(Placement.model_fields)
    assert Placement.model_fields.keys().isdisjoint(Study.model_fields)


def test_no_two_steps_of_a_plan_share_a_key() -> None:
    content = {**CONTENT, "seeds": 2, "methods": ["GA", "GA_KLN", "GA_GDN", "GDR", "NPO", "TV"]}
    found = keys(content)
    # dataset, model, floor; per dose and seed: fine-tuning, reference, ceiling; 6 x 2 cells; and a
    # probe of the floor, of each ceiling and of each cell
    states = 1 + 4 * (1 + 6 * 2)
    assert len(found) == len(set(found)) == 1 + 1 + states + 4 * (1 + 1) + states


def test_all_is_the_number_it_stands_for() -> None:
    assert keys({**CONTENT, "doses": [0, "all"]}) == keys({**CONTENT, "doses": [0, 3]})


def test_other_content_of_a_data_file_is_other_data(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    content = changed("data.source", {"kind": "file", "path": str(file)})
    file.write_text("one\n")
    first = keys(content)
    file.write_text("two\n")
    assert set(keys(content)).isdisjoint(set(first) - {plan_of(content).models[0].key})


def write(folder: Path, content: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sead", 1, r"sead: unknown key; known keys here: .*\bseed\b"),
        ("finetune.lr", 1.0, r"finetune\.lr: unknown key; known keys here: .*\blearning_rate\b"),
        ("models.prompt.sytem", "x", r"models\.0\.prompt\.sytem: unknown key; .*\bsystem\b"),
        ("seed", "many", r"seed: .*integer"),
        ("seeds", 0, r"seeds: .*greater than or equal to 1"),
        ("finetune.learning_rate", float("nan"), r"finetune\.learning_rate: .*(finite|greater)"),
        ("finetune.weight_decay", float("inf"), r"finetune\.weight_decay: .*finite"),
        ("dtype", "float8", r"dtype: .*float32.*bfloat16"),
        ("methods", ["GA", "TV", "GA"], r"methods names 'GA \(plain, m\)' twice"),
        ("methods", [], "methods: name at least one"),
        ("attacks", ["quantise", "quantise"], r"attacks names 'quantise-4' twice"),
        ("models.base", "", "m: give base, or tuned, or both"),
        ("models.unlearned", [{"method": "a", "path": "b"}], "m: unlearned is compared with"),
        ("models.tuned", "t", r"tuned has the doses \[3\], but doses are \[0, 2\]"),
        ("doses", [0, 4], r"doses has 4, but data\.similar\.per_target is 3"),
        ("doses", [3, "all"], r"doses names '3' twice"),
        ("doses", [-1], r"doses\.0.*: .*greater than or equal to 0"),
        ("unlearn_targets", 4, r"unlearn_targets is 4, but data\.targets is 3; lower"),
        ("verify.metric", "bleu", r"verify\.metric is 'bleu', but the probes write: .*rougeL"),
        ("probes.metrics", ["bleu"], r"probes\.0\.metrics: unknown metric 'bleu'; known: rouge1"),
        ("probes", ["bleu"], r"probes\.0: unknown kind 'bleu'; known: .*'rouge'"),
        ("probes", ["kinks"], r"probes: 'kinks' is for image, but data.source 'hub' gives text"),
        ("probes", ["rouge", "rouge"], r"probes names 'rouge' twice"),
        ("probes", ["likelihood"], r"verify\.metric: none of the probes .*: answer_probability"),
        ("name", "a/b", r"name: .*pattern"),
        ("track", "image", r"track: unknown key; known keys here: .*\bdata\b"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    path = write(tmp_path, changed(field, value))
    with pytest.raises(UsageError, match=said) as caught:
        load_study(str(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such preset or file; presets: .*demo"):
        load_study("nowhere")
    with pytest.raises(UsageError, match=r"mine\.yaml: a study is a mapping"):
        load_study(str(write(tmp_path, ["a", "b"])))
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(UsageError, match=r"broken\.yaml: not valid YAML"):
        load_study(str(broken))


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = load_study(str(write(tmp_path, CONTENT)))
    assert study == Study.model_validate(CONTENT)
    assert study == Study.model_validate_json(study.model_dump_json())


@pytest.mark.parametrize("file", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_studies_of_their_name(file: Path) -> None:
    study = load_study(file.stem)
    assert study.name == file.stem
    assert Study.model_validate(study.model_dump(mode="json", exclude_defaults=True)) == study


def test_a_method_may_be_for_some_models() -> None:
    models = [{"name": name, "base": f"some/{name}"} for name in ("m", "n")]
    both = changed("models", models)
    first = changed("methods.models", ["m"]) | {"models": models}
    assert {step.about["model"] for step in plan_of(both).cells} == {"m", "n"}
    assert {step.about["model"] for step in plan_of(first).cells} == {"m"}
    assert set(keys(first)) < set(keys(both))


def test_planning_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, distforget.cli\n"
        "from distforget.plan import make_plan\n"
        "from distforget.loading import load_study\n"
        "print(len(make_plan(load_study('demo')).cells))\n"
        "print([m for m in ('torch', 'ray', 'transformers', 'deepspeed') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == [
        "32",
        "[]",
    ]  # 2 doses x (2 targets x 5 methods + retrain of one)


@pytest.mark.parametrize(
    ("topic", "seed", "drawn"),
    [
        ((0, "retain", 50, 0), 3804716581975069888, [578, 206, 843, 547]),
        ((7, "asked others"), 5603030470371102165, [760, 902, 74, 541]),
    ],
)
def test_draws_are_the_same_on_every_machine(
    topic: tuple[Any, ...], seed: int, drawn: list[int]
) -> None:
    """By hand: the first 16 digits of sha256 of the topic joined by 0x1f, halved; then PCG64."""
    assert generator_seed(*topic) == seed
    assert rng(*topic).integers(0, 1000, 4).tolist() == drawn


def test_draws_about_different_things_differ() -> None:
    topics = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", "b"), (0, "ab"), (10, "a")]
    assert len({generator_seed(*topic) for topic in topics}) == len(topics)
