"""Compares the scores of two studies: the same samples in the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import score_range
from distforget.analysis.intervals import infer
from distforget.analysis.states import GROUP, STATE, in_order, of_targets, targets_of
from distforget.analysis.verdicts import decide

OF_STATE = [*STATE, "seed", "unlearned"]
ROW = [*OF_STATE, "role", "target_index", "sample_id"]

EQUAL, ABOUT, HIGHER, LOWER = "equal", "about equal", "B higher", "B lower"


@dataclass(frozen=True)
class Overlap:
    """Which cells two studies share."""

    both: tuple[str, ...]
    """Done on both sides."""
    only_a: tuple[str, ...]
    """Done in A alone."""
    only_b: tuple[str, ...]
    unfinished: tuple[str, ...]
    """Those of `only_a` and `only_b` that the other study plans as well but has not done."""


def overlap(
    planned_a: Sequence[str], cells_a: pa.Table, planned_b: Sequence[str], cells_b: pa.Table
) -> Overlap:
    """Finds the cells that both studies have done, and those that only one of them has.

    Args:
        planned_a: names of the cells that A plans, as in column `cell` of table `cells`.
        cells_a: table `cells` of A.
    """
    done_a, done_b = _done(cells_a), _done(cells_b)
    only_a = tuple(name for name in planned_a if name in done_a - done_b)
    only_b = tuple(name for name in planned_b if name in done_b - done_a)
    unfinished = (set(only_a) & set(planned_b)) | (set(only_b) & set(planned_a))
    return Overlap(
        tuple(name for name in planned_a if name in done_a & done_b),
        only_a,
        only_b,
        tuple(name for name in (*only_a, *only_b) if name in unfinished),
    )


def _done(cells: pa.Table) -> set[str]:
    rows = cells.select(["cell", "state"]).to_pylist()
    return {row["cell"] for row in rows if row["state"] == "done"}


def differences(a: pa.Table, b: pa.Table, metric: str, margin: float) -> pd.DataFrame:
    """Means of both studies and B minus A with its interval, one row per model state and role.

    Compared are the samples that both sides scored in the same cell (model, dose, method, variant,
    seed, target by name) or, before unlearning, in the same state. A target's value is the mean
    over its samples, then over seeds; the interval is that of the mean over targets, for itself.
    Samples of no target's family have a value a target after unlearning, by the target that their
    cell unlearned, and are left out before.

    Args:
        a: a `scores` table.
        b: that of the other study.
        metric: the score compared.
        margin: the smallest difference that matters.

    Returns:
        Columns phase, model, dose, method, variant, role; a, b (means over targets), difference,
        low, high (95 % interval; NaN for fewer than 3 targets), targets, samples (scores
        compared), largest (between two scores of one sample), word (equal: every score is; B
        higher, B lower: at 5 % over all rows of the table, Holm, and by the margin or more; about
        equal: surely within the margin, Holm; undecided) and reason.
    """
    joined = _joined(a, b, metric)
    if joined.empty:
        return pd.DataFrame(columns=[*GROUP, "a", "b", "difference", "low", "high", "targets",
                                     "samples", "largest", "word", "reason"])  # fmt: skip
    targets = of_targets(joined, GROUP, ["a", "b"])
    targets["difference"] = targets["b"] - targets["a"]
    groups = list(targets.groupby(GROUP, dropna=False))
    least, most = score_range(metric)
    known = infer(
        [group["difference"].to_numpy() for _, group in groups],
        (0.0, -margin, margin),
        bounds=(least - most, most - least),
    )
    found = targets.groupby(GROUP, dropna=False)[["a", "b", "difference"]].mean()
    found["low"], found["high"], found["targets"] = known.low_G, known.high_G, known.size_G
    same = joined["a"].eq(joined["b"]) | (joined["a"].isna() & joined["b"].isna())
    apart = joined["b"].sub(joined["a"]).abs().mask(same, 0.0)
    scored = joined.assign(same=same, apart=apart).groupby(GROUP, dropna=False)
    found["samples"], found["largest"] = scored.size(), scored["apart"].max()
    directed, about = (decide(known, claim, margin) for claim in ("positive", "zero"))
    words = [_word(*three) for three in zip(scored["same"].all(), directed, about, strict=True)]
    found["word"], found["reason"] = zip(*words, strict=True)
    return in_order(found.reset_index())


def unpaired(a: pa.Table, b: pa.Table, metric: str) -> tuple[int, int]:
    """Scores of A alone and of B alone in the cells and states that both have."""
    one, other = _scores(a, metric), _scores(b, metric)
    shared = one[OF_STATE].drop_duplicates().merge(other[OF_STATE].drop_duplicates(), on=OF_STATE)
    sides = one.merge(other, on=ROW, how="outer", indicator=True).merge(shared, on=OF_STATE)
    return int((sides["_merge"] == "left_only").sum()), int((sides["_merge"] == "right_only").sum())


def _scores(scores: pa.Table, metric: str) -> pd.DataFrame:
    frame: pd.DataFrame = scores.to_pandas()
    return frame.loc[frame["metric"] == metric, [*ROW, "value"]]


def _joined(a: pa.Table, b: pa.Table, metric: str) -> pd.DataFrame:
    """Scores of both studies, one row for each sample that both scored in the same state."""
    one, other = _scores(a, metric), _scores(b, metric)
    joined = one.rename(columns={"value": "a"}).merge(other.rename(columns={"value": "b"}), on=ROW)
    joined["target"] = targets_of(joined)
    return joined[joined["target"].notna()]


def _word(equal: bool, directed: tuple[str, str], about: tuple[str, str]) -> tuple[str, str]:
    if equal:
        return EQUAL, ""
    if directed[0] != "undecided":
        return {"supported": HIGHER, "contradicted": LOWER}[directed[0]], ""
    return (ABOUT, "") if about[0] == "supported" else directed
