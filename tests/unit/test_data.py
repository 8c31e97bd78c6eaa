"""The `data` of a study: unions of what the folders hold; a wrong field is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distforget.errors import UsageError
from distforget.loading import load_study
from distforget.similarity import similarities
from distforget.sources import sources
from distforget.study import Study
from tests.unit.test_study import CONTENT, IMAGES, changed, plan_of, write


def test_images_have_defaults_of_their_own() -> None:
    study = Study.model_validate({**IMAGES, "data": {"source": "digits"}})
    assert study.data.model_dump() == {
        "name": "digits", "source": {"kind": "digits"}, "targets": 3, "per_class": 50,
        "unseen_per_class": 20,
        "similar": {"kind": "mask", "per_target": 5, "block": 2, "masked_fraction": 0.3},
    }  # fmt: skip
    assert study == Study.model_validate_json(study.model_dump_json())
    noise = Study.model_validate(changed("data.similar", "noise", IMAGES)).data.similar
    assert noise.model_dump() == {"kind": "noise", "per_target": 5, "sigma": 0.1}


def test_a_study_that_names_no_source_is_about_fictitious_people() -> None:
    study = Study.model_validate({k: v for k, v in CONTENT.items() if k != "data"})
    assert study.track == "text"
    assert study.data.name == study.data.source.kind
    assert study == Study.model_validate_json(study.model_dump_json())


@pytest.mark.parametrize(
    ("base", "field", "value", "said"),
    [
        (CONTENT, "data.per_class", 3, "data.per_class: unknown key; known keys here: name, ne"),
        (IMAGES, "data.others", 4, "data.others: unknown key; known keys here: name, per_class"),
        (CONTENT, "data.similar.block", 2, "data.similar.block: unknown key; .*: kind, paraphr"),
        (IMAGES, "data.similar.sigma", 0.1, "data.similar.sigma: unknown key; .*: block, kind"),
        (IMAGES, "data.similar.masked_fraction", 0, "similar.masked_fraction: .*greater than 0"),
        (IMAGES, "data.per_class", 0, "data.per_class: .*greater than or equal to 1"),
        (IMAGES, "data.source.path", "", "data.source.path: .*at least 1 character"),
        (CONTENT, "data.source.revison", "x", "data.source.revison: unknown key; .*revision"),
        (CONTENT, "data.similar", "mask", "data.similar: unknown kind 'mask'; known: .*'given'"),
        (CONTENT, "data.similar", "restated", "'restated' needs what each text is made of, which"),
        (CONTENT, "data.source", {"kind": "nothing"}, "data: unknown source 'nothing'; known: b"),
        (IMAGES, "data.source", {"kind": "torchvision", "path": "x"}, "data.source.path: .*MNIST"),
        (IMAGES, "data.source", {"kind": "npz"}, "data.source.path: Field required"),
        (CONTENT, "fit", {}, "fit is for studies of images, but data.source .* gives text"),
    ],
)  # fmt: skip
def test_a_field_in_the_wrong_place_is_named(
    tmp_path: Path, base: dict[str, Any], field: str, value: Any, said: str
) -> None:
    path = write(tmp_path, changed(field, value, base))
    with pytest.raises(UsageError, match=said) as caught:
        load_study(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parts", [sources, similarities], ids=["sources", "similarity"])
def test_every_part_says_what_it_is_and_each_of_its_fields(parts: Any) -> None:
    for kind, part in parts().items():
        assert part.version >= 1
        assert len(part.source) > 10, kind
        assert part.config.__doc__, kind


def test_the_json_schema_offers_every_part_with_its_fields() -> None:
    text = str(Study.model_json_schema())
    for kind in (*sources(), *similarities()):
        assert f"'const': '{kind}'" in text


def test_other_content_of_images_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for kind, file in (("npz", "d.npz"), ("folder", "a/1.png")):
        place = tmp_path / file if kind == "npz" else tmp_path
        content = changed("data.source", {"kind": kind, "path": str(place)}, IMAGES)
        found = []
        for text in ("one", "two"):
            (tmp_path / file).write_text(text)
            found.append(plan_of(content).dataset.key)
        assert found[0] != found[1]


def test_a_file_that_moves_is_the_same_data(tmp_path: Path) -> None:
    found = []
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).write_text("content")
        source = {"kind": "npz", "path": str(tmp_path / name)}
        found.append(plan_of(changed("data.source", source, IMAGES)).dataset.key)
    assert found[0] == found[1]
