"""Groups of samples: families that lie together, purity, topics, and their figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from distforget import schemas
from distforget.report import clusters
from distforget.report.clusters import Points, chosen, of_images, of_texts, topics
from distforget.report.figure_numbers import draw
from distforget.report.study_tables import NothingToShowError
from tests.made_images import made_images
from tests.unit.test_figures import made as made_texts

SUBJECTS = {
    1: ("harbour", "the ferry leaves the harbour at dawn with fish and salt"),
    2: ("violin", "the violin maker carves spruce and varnish for the concert"),
    3: ("volcano", "the volcano throws ash and lava over the northern valley"),
}


def texts() -> pa.Table:
    rows = []
    for target, (subject, said) in SUBJECTS.items():
        for rank in range(6):
            words = said.split()
            rows.append(
                {"dataset": "d", "sample_id": len(rows), "role": "similar" if rank else "target",
                 "target_index": target, "similar_rank": rank or None,
                 "question": f"What of the {subject}?", "answer": " ".join(words[rank % 3 :])}
            )  # fmt: skip
    return schemas.from_rows("samples", rows)


@pytest.fixture
def by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are counts of words: no model is loaded."""
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)


def points_of(groups: list[int], targets: list[int | None]) -> Points:
    place = np.zeros((len(groups), 2))
    rows = pd.DataFrame({"target_index": targets})
    return Points(rows, place, place, np.asarray(groups), "made up")


def test_purity_is_the_share_of_a_family_in_one_group() -> None:
    # Target 1: 3 of 4 in group 0; target 2: 1 of 2, the other in none; one that is alone.
    points = points_of([0, 0, 0, 1, 2, -1, 3, 0], [1, 1, 1, 1, 2, 2, 3, None])
    assert points.purity == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert np.isnan(points_of([0, 1], [1, None]).purity)
    assert points_of([-1, -1], [1, 1]).purity == 0.0


@pytest.mark.usefixtures("by_words")
def test_texts_of_one_subject_form_a_topic_with_its_words() -> None:
    points = of_texts(texts())
    assert points.purity == 1.0
    names = topics(points)
    assert len(names) == 3
    assert all(any(s in name for name in names.values()) for s, _ in SUBJECTS.values())


def test_the_same_samples_give_the_same_picture() -> None:
    images = made_images().of_images.samples
    assert np.array_equal(of_images(images).place_N2, of_images(images).place_N2)


def test_too_few_samples_are_told() -> None:
    with pytest.raises(NothingToShowError, match="too few"):
        chosen(texts().slice(0, 2))


@pytest.mark.usefixtures("by_words")
@pytest.mark.parametrize("number", ["5", "6", "26"])
def test_text_figures_are_drawn(number: str) -> None:
    import dataclasses

    tables = dataclasses.replace(made_texts(), texts=texts())
    (drawn,) = draw(tables, number)
    assert drawn.figure is not None, drawn.lacking
    assert drawn.name == f"figure-{number}"
    (lacking,) = draw(tables, "19")
    assert "too few" in lacking.lacking  # there are no other samples


@pytest.mark.parametrize("number", ["1", "2"])
def test_image_figures_are_drawn(number: str) -> None:
    (drawn,) = draw(made_images(), number)
    assert drawn.figure is not None, drawn.lacking
    said = " ".join(text.get_text() for text in drawn.figure.texts)
    assert "ResNet-50" in said  # what the features are, and why
