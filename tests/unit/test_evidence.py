"""The table on an image's target: means, p-values combined, and what is left out of means."""

from __future__ import annotations

import pytest

from distforget import schemas
from distforget.analysis.evidence import evidence, shown
from distforget.analysis.intervals import combined
from distforget.analysis.states import means

P_VALUES = [0.004, 0.5, 0.9]


def scores() -> list[dict[str, object]]:
    return [
        {
            "attack": "none",
            "track": "image", "dataset": "d", "model": "m", "phase": "pre_unlearn", "dose": 5,
            "seed": 0, "role": "target", "target_index": target, "sample_id": target,
            "metric": metric, "value": value,
        }
        for target, p in enumerate(P_VALUES, 1)
        for metric, value in (("ssim", 0.1 * target), ("kinks", 3.0), ("ssim_p_value", p))
    ]  # fmt: skip


def test_scores_are_averaged_and_p_values_combined() -> None:
    (row,) = evidence(schemas.from_rows("scores", scores())).to_dict("records")
    assert list(row) == ["model", "state", "dose", "kinks", "ssim", "ssim_p_value", "n"]
    assert row["ssim"] == pytest.approx(0.2)
    assert (row["kinks"], row["n"]) == (3, 3)
    assert row["ssim_p_value"] == pytest.approx(combined([0.004, 0.5, 0.9]))
    assert row["ssim_p_value"] < 0.02


def test_means_of_states_have_no_p_values() -> None:
    found = means(schemas.from_rows("scores", scores()))
    assert set(found["metric"]) == {"ssim", "kinks"}


def test_numbers_are_written_for_people() -> None:
    assert shown("ssim_p_value", 0.00497) == "0.005"
    assert shown("kinks", 31.333) == "31.33"
    assert shown("kinks", float("nan")) == ""
