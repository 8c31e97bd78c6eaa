"""One line a method: what it forgets, keeps, withstands and costs, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from distforget import methods
from distforget.analysis.comparisons import score_range
from distforget.analysis.intervals import Floats, infer
from distforget.analysis.separation import auc
from distforget.attacks import UNATTACKED
from distforget.method_choice import PLACEBO, SEQUENCE
from distforget.metrics import CHOICE_ACCURACY, MIN_K_PLUS, TRUTH_RATIO

Group = Literal["forget", "keep", "withstand", "as retrained", "cost"]
FORGET_QUALITY, MODEL_UTILITY, PRIVACY_LEAK = "forget quality", "model utility", "privacy leak"
OF_UTILITY = ("answer_probability", "rougeL_recall", TRUTH_RATIO)
TARGETS_COMPARED = 3
"""With fewer retrained targets nothing is said of forget quality."""


@dataclass(frozen=True)
class Column:
    """What a column of the leaderboard says."""

    name: str
    group: Group
    better: Literal["low", "high"]
    meaning: str


@dataclass(frozen=True)
class Value:
    """A mean over targets with its 95 % interval; NaN where there is none."""

    mean: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Line:
    """A method on a model at a dose; `kind` says what else a line may be."""

    method: str
    variant: str
    kind: Literal["method", "retrained", "before unlearning", "before fine-tuning"]
    values: Mapping[str, Value]
    """By column."""
    targets: int
    diverged: int
    """Cells that diverged."""
    on_front: bool = False
    """Whether no other method both forgets and keeps more (Pareto)."""


@dataclass(frozen=True)
class Leaderboard:
    """The lines of a model at a dose, those that forget most first, and the columns they have."""

    model: str
    dose: int
    metric: str
    columns: Sequence[Column]
    lines: Sequence[Line] = field(default_factory=list)

    @property
    def is_share(self) -> bool:
        """Whether the score is from 0 to 1."""
        return score_range(self.metric) == (0, 1)


def leaderboards(scores: pa.Table, cells: pa.Table, metric: str) -> list[Leaderboard]:
    """A leaderboard for each model and dose, the highest dose first.

    Args:
        scores: table `scores`, after attacks too.
        cells: table `cells`.
        metric: the score of knowledge to lean on, e.g. fact_recall.
    """
    frame = scores.to_pandas()
    frame = frame[~frame["variant"].isin([PLACEBO, SEQUENCE])]
    done = cells.to_pandas()
    done = done[done["state"] == "done"]
    after = frame[frame["phase"] == "post_unlearn"]
    found = []
    for (model, dose), mine in after.groupby(["model", "dose"]):
        before = frame[(frame["model"] == model) & (frame["phase"] != "post_unlearn")]
        before = before[before["dose"].isna() | (before["dose"] == dose)]
        own = done[(done["model"] == model) & (done["dose"] == dose)]
        found.append(_Board(str(model), int(dose), metric, mine, before, own).made())
    return sorted(found, key=lambda board: (board.model, -board.dose))


@dataclass(frozen=True)
class _Board:
    model: str
    dose: int
    metric: str
    after: pd.DataFrame
    before: pd.DataFrame
    cells: pd.DataFrame

    def made(self) -> Leaderboard:
        attacks = [name for name in self.after["attack"].unique() if name != UNATTACKED]
        columns = [
            Column("x", "forget", "low", f"{self.metric} of the target"),
            Column("S(x)", "forget", "low", f"{self.metric} of its similar samples"),
            Column("neighbours", "keep", "high", f"{self.metric} of samples like the target"),
            Column("others", "keep", "high", f"{self.metric} of other samples"),
            Column("utility", "keep", "high", "multiple-choice questions answered right"),
            Column(
                MODEL_UTILITY, "keep", "high",
                "harmonic mean of answer probability, ROUGE-L recall and 1 - truth ratio of "
                "neighbours and of others (as TOFU's)",
            ),
            *(
                Column(name, "withstand", "low", f"{self.metric} of the target after {name}")
                for name in attacks
            ),
            Column(
                "distance", "as retrained", "low",
                f"mean distance of the target's {self.metric} from that of a model that never saw "
                "it",
            ),
            Column(
                FORGET_QUALITY, "as retrained", "high",
                "p-value that truth ratios of targets are as in models that never saw them "
                "(two-sided Kolmogorov-Smirnov test, TOFU)",
            ),
            Column(
                PRIVACY_LEAK, "as retrained", "low",
                "2 |AUC - 1/2| of Min-K%++ between targets after unlearning and in models that "
                "never saw them; 0: an attacker cannot tell (as PrivLeak of MUSE)",
            ),
            Column("seconds", "cost", "low", "to unlearn one target"),
        ]  # fmt: skip
        lines = [
            self._line(str(method), str(variant), rows, attacks)
            for (method, variant), rows in self.after.groupby(["method", "variant"], sort=False)
        ]
        there = [c for c in columns if any(c.name in line.values for line in lines)]
        front = _front(lines, [c for c in there if c.group in ("forget", "keep")])
        lines = [replace(line, on_front=i in front) for i, line in enumerate(lines)]
        lines.sort(key=lambda line: (line.kind != "method", line.values["x"].mean))
        ends = [self._before("pre_unlearn"), self._before("pre_finetune")]
        every = [*lines, *(line for line in ends if line)]
        return Leaderboard(self.model, self.dose, self.metric, there, every)

    def _line(self, method: str, variant: str, rows: pd.DataFrame, attacks: Sequence[str]) -> Line:
        plain = rows[rows["attack"] == UNATTACKED]
        values = self._samples(plain, "unlearned")
        for attack in attacks:
            attacked = _own(rows[rows["attack"] == attack], "target", "unlearned")
            _put(values, attack, attacked[attacked["metric"] == self.metric], self.metric)
        values |= self._as_retrained(plain)
        own = self.cells[(self.cells["method"] == method) & (self.cells["variant"] == variant)]
        if own["unlearn_seconds"].notna().any():
            values["seconds"] = Value(float(own["unlearn_seconds"].mean()))
        return Line(
            method, variant, "retrained" if method == methods.reference() else "method", values,
            plain["unlearned"].nunique(), int(own["diverged"].eq(True).sum()),
        )  # fmt: skip

    def _before(self, phase: str) -> Line | None:
        rows = self.before[(self.before["phase"] == phase)]
        rows = rows[rows["attack"] == UNATTACKED]
        values = self._samples(rows, "target_index")
        if "x" not in values:
            return None
        kind: Literal["before unlearning", "before fine-tuning"] = (
            "before unlearning" if phase == "pre_unlearn" else "before fine-tuning"
        )
        return Line("", "", kind, values, rows["target_index"].nunique(), 0)

    def _samples(self, rows: pd.DataFrame, by: str) -> dict[str, Value]:
        """Of targets, their similar samples, and what should stay."""
        values: dict[str, Value] = {}
        for name, role, metric in (
            ("x", "target", self.metric),
            ("S(x)", "similar", self.metric),
            ("neighbours", "neighbour", self.metric),
            ("others", "other", self.metric),
            ("utility", "utility", CHOICE_ACCURACY),
        ):
            mine = _own(rows[rows["metric"] == metric], role, by)
            _put(values, name, mine, metric)
        utility = model_utility(rows)
        if np.isfinite(utility):
            values[MODEL_UTILITY] = Value(utility)
        return values

    def _as_retrained(self, plain: pd.DataFrame) -> dict[str, Value]:
        """Distance from the retrained models, target by target, and forget quality."""
        reference = self.after[
            (self.after["method"] == methods.reference())
            & (self.after["variant"] == "plain")
            & (self.after["attack"] == UNATTACKED)
        ]
        values: dict[str, Value] = {}
        mine, theirs = (_own(rows, "target", "unlearned") for rows in (plain, reference))
        keys = ["metric", "target", "seed"]
        both = mine.merge(theirs, on=keys, suffixes=("", "_retrained"))
        apart = both[both["metric"] == self.metric]
        distance = (apart["value"] - apart["value_retrained"]).abs()
        _put(values, "distance", apart.assign(value=distance), self.metric)
        for name, metric in ((FORGET_QUALITY, TRUTH_RATIO), (PRIVACY_LEAK, MIN_K_PLUS)):
            pair = both[both["metric"] == metric]
            if pair["target"].nunique() < TARGETS_COMPARED:
                continue
            own, other = (pair[column].to_numpy() for column in ("value", "value_retrained"))
            value = (
                float(stats.ks_2samp(own, other).pvalue)
                if name == FORGET_QUALITY
                else 2 * abs(auc(own, other) - 0.5)
            )
            values[name] = Value(value)
        return values


def model_utility(rows: pd.DataFrame) -> float:
    """TOFU's, of the samples here that should stay; NaN where a score is missing.

    Args:
        rows: of table `scores`, of one model state or of the cells of one method.

    Source: Maini et al. 2024, TOFU, section 2.2.
    """
    kept = rows[rows["role"].isin(["neighbour", "other"]) & rows["metric"].isin(OF_UTILITY)]
    ratio = kept["metric"] == TRUTH_RATIO
    kept = kept.assign(value=kept["value"].where(~ratio, (1 - kept["value"]).clip(lower=0)))
    means = kept.groupby(["role", "metric"])["value"].mean()
    if kept["metric"].nunique() < len(OF_UTILITY):
        return float("nan")
    return float(stats.hmean(means)) if (means > 0).all() else 0.0


def _own(rows: pd.DataFrame, role: str, by: str) -> pd.DataFrame:
    """Columns metric, target, seed and value: a role's mean score for each target.

    Samples that belong to no target are those of each target that was unlearned; before unlearning
    they are one group.
    """
    mine = rows[rows["role"] == role]
    if role in ("target", "similar", "neighbour") and by == "unlearned":
        mine = mine[mine["target_index"] == mine["unlearned"]]
    mine = mine.assign(
        target=mine[by].fillna(0).astype("int64"), seed=mine["seed"].fillna(0).astype("int64")
    )
    return mine.groupby(["metric", "target", "seed"])["value"].mean().reset_index()


def _put(values: dict[str, Value], name: str, rows: pd.DataFrame, metric: str) -> None:
    """Add the mean over targets, if there are any."""
    if rows.empty:
        return
    of_targets: Floats = rows.pivot_table(index="target", columns="seed", values="value").to_numpy()
    known = infer([of_targets], bounds=score_range(metric))
    low, high = float(known.low_G[0]), float(known.high_G[0])
    values[name] = Value(float(known.estimate_G[0]), low, high)


def _front(lines: Sequence[Line], columns: Sequence[Column]) -> set[int]:
    """Numbers of the methods that no other one beats in both what is forgotten and what is kept.

    A method that lacks one of the columns (it unlearned those samples, too) is not compared.
    """
    compared = [column for column in columns if column.name != MODEL_UTILITY]

    def mean(line: Line, group: Group) -> float:
        means = [line.values[c.name].mean for c in compared if c.group == group]
        return float(np.mean(means)) if means else 0.0

    points = {
        i: (-mean(line, "forget"), mean(line, "keep"))
        for i, line in enumerate(lines)
        if line.kind == "method" and all(c.name in line.values for c in compared)
    }
    return {
        i
        for i, mine in points.items()
        if not any(_beats(other, mine) for n, other in points.items() if n != i)
    }


def _beats(other: tuple[float, float], mine: tuple[float, float]) -> bool:
    """No worse in both, and better in one."""
    return all(o >= m for o, m in zip(other, mine, strict=True)) and other != mine
