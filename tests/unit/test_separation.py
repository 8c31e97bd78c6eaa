"""AUC and true positives against scikit-learn, and the table of them against a hand-made one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from distforget import schemas
from distforget.analysis.separation import auc, separation, tpr_at_fpr

SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=30)


@given(SCORES, SCORES, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_as_scikit_learn_has_it(members: list[float], others: list[float], fpr: float) -> None:
    truth = [1] * len(members) + [0] * len(others)
    found = auc(np.array(members), np.array(others))
    assert found == pytest.approx(roc_auc_score(truth, members + others))
    false, true, _ = roc_curve(truth, members + others, drop_intermediate=False)
    expected = true[false <= fpr + 1e-12].max()
    assert tpr_at_fpr(np.array(members), np.array(others), fpr) == pytest.approx(expected)


def test_a_model_and_dose_is_a_row() -> None:
    values = {"other": (0.9, 0.8, 0.2), "unseen": (0.3, 0.1)}
    rows = [
        {
            "attack": "none",
            "track": "image", "dataset": "d", "model": "m", "phase": phase, "dose": 3, "seed": 0,
            "sample_id": i, "role": role, "metric": metric, "value": value + shift,
        }
        for role, some in values.items()
        for i, value in enumerate(some)
        for phase, metric, shift in (
            ("pre_unlearn", "ssim", 0), ("pre_unlearn", "kinks", 1), ("post_unlearn", "ssim", 2),
        )
    ]  # fmt: skip
    (row,) = separation(schemas.from_rows("scores", rows), "ssim").to_dict("records")
    assert (row["model"], row["dose"], row["n_trained"], row["n_unseen"]) == ("m", 3, 3, 2)
    assert row["auc"] == pytest.approx(5 / 6)
    assert row["tpr"] == pytest.approx(2 / 3)
    assert row["trained"] == pytest.approx(1.9 / 3)
