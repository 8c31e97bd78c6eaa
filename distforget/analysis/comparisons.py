"""Computes the score differences behind each claim from `scores`, one row per target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from distforget import methods, schemas
from distforget.attacks import UNATTACKED
from distforget.method_choice import LOW, PLACEBO, SEQUENCE
from distforget.metrics import CHOICE_ACCURACY, UNICODE
from distforget.probes import metric_named

Expected = Literal["negative", "positive", "zero"]
Quantity = Literal[
    "post-pre_unlearn",
    "post-pre_finetune",
    "dose-dose",
    "enhanced-plain",
    "post-retrained",
    "post-placebo",
    "post-null",
    "post-unattacked",
]
Kind = Literal["plain", "enhanced", "low", "placebo"]
FAMILY = ("target", "similar")
CHOICE_MARGIN = 0.03
"""A share of questions that matters: three in a hundred (the paper calls differences marginal)."""


@dataclass(frozen=True)
class Experiment:
    """A comparison of the paper (SPEC section 5) or beyond it, and what it should show."""

    name: str
    quantity: Quantity
    role: Literal["target", "similar", "other", "utility"]
    dose: Literal["all", "none", "each"]
    """Training data of the left-hand model: all similar samples (W), none (W/O), or any dose."""
    variant: Kind | Literal[""]
    """Kind of the left-hand cells; "" stands for any kind but placebo."""
    expected: Expected
    title: str
    track: Literal["text", "image", ""] = "text"
    """The track whose experiment it is in the paper; "" if it is for both."""
    metric: str = ""
    """The score compared; "": each of the study's scores of knowledge."""
    margin: float = 0.0
    """The smallest difference that matters; 0: the study's."""

    def is_about(self, variant: str) -> bool:
        """Whether the experiment takes cells of this variant as its left-hand side."""
        kind = kind_of(variant)
        return kind == self.variant if self.variant else kind != "placebo"


EXPERIMENTS = (
    Experiment(
        "E1", "post-pre_unlearn", "similar", "all", "plain", "zero",
        "similar samples, trained on: what can be reconstructed stays", "image",
    ),
    Experiment(
        "E2", "post-pre_unlearn", "target", "none", "plain", "negative",
        "target, no similar samples: less of it can be reconstructed", "image",
    ),
    Experiment(
        "E2", "post-pre_unlearn", "target", "all", "plain", "zero",
        "target, similar samples kept: it can still be reconstructed", "image",
    ),
    Experiment(
        "E2", "dose-dose", "target", "all", "plain", "positive",
        "target: similar samples in the data keep it reconstructible (W minus W/O)", "image",
    ),
    Experiment(
        "E2", "post-null", "target", "none", "plain", "zero",
        "target, no similar samples: no more than a never-trained sample is left", "image",
    ),
    Experiment(
        "E2", "post-pre_unlearn", "other", "each", "plain", "zero",
        "control: other samples, which stay, can be reconstructed as before", "image",
    ),
    Experiment(
        "E6", "post-pre_unlearn", "target", "all", "enhanced", "negative",
        "target unlearned with its nearest samples: less of it can be reconstructed", "image",
    ),
    Experiment(
        "E6", "post-null", "target", "all", "enhanced", "zero",
        "target unlearned with its nearest samples: no more than a never-trained one is left",
        "image",
    ),
    Experiment(
        "E6", "enhanced-plain", "target", "all", "enhanced", "negative",
        "target unlearned with its nearest samples: less is left than of the target alone", "image",
    ),
    Experiment(
        "E3", "post-pre_unlearn", "similar", "all", "plain", "negative",
        "similar samples, trained on: knowledge falls when the target is unlearned",
    ),
    Experiment(
        "E3", "post-pre_finetune", "similar", "all", "plain", "positive",
        "similar samples, trained on: knowledge stays above the floor",
    ),
    Experiment(
        "alone", "post-pre_unlearn", "target", "none", "plain", "negative",
        "target, no similar samples in the data: knowledge falls",
    ),
    Experiment(
        "E4", "post-pre_unlearn", "target", "all", "plain", "negative",
        "target, similar samples kept: knowledge falls",
    ),
    Experiment(
        "E4", "post-pre_finetune", "target", "all", "plain", "positive",
        "target, similar samples kept: knowledge stays above the floor",
    ),
    Experiment(
        "E4", "dose-dose", "target", "all", "plain", "positive",
        "target: similar samples in the data keep its knowledge alive (W minus W/O)",
    ),
    Experiment(
        "E5", "post-pre_unlearn", "similar", "none", "plain", "negative",
        "similar samples, never trained on: knowledge falls",
    ),
    Experiment(
        "E5", "post-pre_finetune", "similar", "none", "plain", "positive",
        "similar samples, never trained on: knowledge stays above the floor",
    ),
    Experiment(
        "E7", "post-pre_finetune", "similar", "all", "enhanced", "zero",
        "enhanced: similar samples are about at the floor",
    ),
    Experiment(
        "E7", "post-pre_finetune", "similar", "all", "low", "positive",
        "enhanced by noise alone: similar samples stay above the floor",
    ),
    Experiment(
        "E7", "enhanced-plain", "similar", "all", "enhanced", "negative",
        "enhanced: similar samples know less than after the plain method",
    ),
    Experiment(
        "E8", "enhanced-plain", "utility", "each", "enhanced", "zero",
        "enhanced: as many questions of common sense are answered right as after the plain method",
        metric=CHOICE_ACCURACY, margin=CHOICE_MARGIN,
    ),
    Experiment(
        "E8", "post-pre_unlearn", "utility", "each", "plain", "zero",
        "as many questions of common sense are answered right as before unlearning",
        metric=CHOICE_ACCURACY, margin=CHOICE_MARGIN,
    ),
    Experiment(
        "retrained", "post-retrained", "target", "each", "plain", "zero",
        "target: as a model that never saw it", "",
    ),
    Experiment(
        "retrained", "post-retrained", "similar", "each", "plain", "zero",
        "similar samples: as in a model that never saw the target", "",
    ),
    Experiment(
        "placebo", "post-pre_unlearn", "target", "each", "placebo", "zero",
        "noise floor: unlearning an unrelated sample leaves the target as it was", "",
    ),
    Experiment(
        "placebo", "post-placebo", "target", "each", "plain", "negative",
        "target: knowledge falls further than when an unrelated sample is unlearned", "",
    ),
    Experiment(
        "placebo", "post-placebo", "similar", "each", "plain", "negative",
        "similar samples: knowledge falls further than when an unrelated sample is unlearned", "",
    ),
    Experiment(
        "attack", "post-unattacked", "target", "each", "", "zero",
        "target: the attack on the weights brings no knowledge back", "",
    ),
)  # fmt: skip


def compare(
    scores: pa.Table,
    metrics: Sequence[str],
    margin: float,
    experiments: Sequence[Experiment] = EXPERIMENTS,
) -> pa.Table:
    """The `comparisons` table of a study, or of other comparisons of the same kind.

    A sample family's score is the mean over the samples asked, e.g. KM(M; S(x_i)) of SPEC section
    5. Phases before unlearning are averaged over the same samples as the phase after it. Both sides
    of a comparison were attacked alike, unless it is about the attack.

    Args:
        scores: a `scores` table; cells that are missing in it are missing in the result.
        metrics: the scores of knowledge, e.g. rougeL_recall: see `knowledge_metrics`.
        margin: differences up to it agree with the expectation "zero".
    """
    frame = scores.to_pandas()
    mine: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        if experiment.track in ("", *frame["track"].unique()):
            for metric in [experiment.metric] if experiment.metric else metrics:
                mine.setdefault(metric, []).append(experiment)
    found = [
        rows
        for attack in frame["attack"].unique()
        for name, some in mine.items()
        for rows in _of_metric(frame[frame["metric"] == name], attack, some, margin)
    ]
    if not found:
        return schemas.empty("comparisons")
    rows = pd.concat(found, ignore_index=True)
    rows["difference"] = rows["left"] - rows["right"]
    names = schemas.describe("comparisons").columns
    return schemas.from_rows(
        "comparisons",
        [
            {name: None if pd.isna(row[name]) else row[name] for name in names}
            for row in rows.to_dict("records")
        ],
    )


def knowledge_metrics(metric: str, scores: pa.Table) -> list[str]:
    """The scores that say what a model knows, the one to lean on first.

    KM counts the words of an answer. Where samples have facts, fact_recall says how many of them
    are known; where they have none, the probability of the true answer stands beside KM.

    Args:
        metric: the study's, `verify.metric`.
        scores: the study's.
    """
    there = sorted(scores["metric"].unique().to_pylist())
    km = written_name(metric, scores)
    leading = [name for name in there if metric_named(name).leads and name != km]
    if leading:
        return [*leading, km]
    return [km, *(name for name in there if metric_named(name).beside and name != km)]


def written_name(metric: str, scores: pa.Table) -> str:
    """What scores call a metric of a study: ROUGE has another name where it counts Unicode words.

    Args:
        scores: the study's; its dataset decided which words they count.
    """
    unicode = f"{metric}{UNICODE}"
    return unicode if pc.any(pc.equal(scores["metric"], unicode)).as_py() else metric


def _of_metric(
    scores: pd.DataFrame, attack: str, experiments: Sequence[Experiment], margin: float
) -> list[pd.DataFrame]:
    """Rows of each experiment for one score and one attack; empty if no cell has that score."""
    every = _of_families(scores, {e.role for e in experiments})
    frame = every[every["attack"] == attack]
    post = _post(frame)
    if post.empty:
        return []
    unattacked = _post(every[every["attack"] == UNATTACKED])
    if attack == UNATTACKED:
        experiments = [e for e in experiments if e.quantity != "post-unattacked"]
    found = [_rows(e, post, _right_side(e, frame, post, unattacked)) for e in experiments]
    return [
        rows.assign(
            metric=scores["metric"].iloc[0],
            attack=attack,
            agrees=as_expected(rows["left"] - rows["right"], e.expected, e.margin or margin),
        )
        for e, rows in zip(experiments, found, strict=True)
    ]


def kind_of(variant: str) -> Kind:
    """What a variant's name says: names of a study's own count as plain."""
    if variant == PLACEBO:
        return "placebo"
    if variant.startswith(LOW):
        return "low"
    return "enhanced" if variant.startswith("enhanced") else "plain"


def other_side(experiment: Experiment, method: str, variant: str) -> tuple[str, str]:
    """Method and variant of the cells on the right side; the left side's own if there are none."""
    others = {
        "enhanced-plain": (method, "plain"),
        "post-retrained": (methods.reference(), "plain"),
        "post-placebo": (method, PLACEBO),
    }
    return others.get(experiment.quantity, (method, variant))


def score_range(metric: str) -> tuple[float, float]:
    """Least and largest possible score."""
    found = metric_named(metric)
    return found.low, found.high


def as_expected(difference: pd.Series[float], expected: Expected, margin: float) -> pd.Series[bool]:
    """Which differences have the sign expected; "zero" is within the margin."""
    match expected:
        case "negative":
            return difference < 0
        case "positive":
            return difference > 0
        case "zero":
            return difference.abs() <= margin


def _rows(experiment: Experiment, post: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Both sides of an experiment, one row for each target."""
    left = post[post["variant"].map(experiment.is_about) & (post["role"] == experiment.role)]
    highest = post["dose"].max()
    if experiment.dose == "all":
        left = left[(left["dose"] == highest) & (highest > 0)]
    elif experiment.dose == "none":
        left = left[left["dose"] == 0]
    keys = [name for name in right.columns if name not in ("right", "baseline_dose")]
    return left.merge(right, on=keys).assign(
        experiment=experiment.name, quantity=experiment.quantity, expected=experiment.expected
    )


def _right_side(
    experiment: Experiment, frame: pd.DataFrame, post: pd.DataFrame, unattacked: pd.DataFrame
) -> pd.DataFrame:
    """What the left side is compared with: `right`, `baseline_dose` and the columns to join on."""
    same = ["model", "seed", "unlearned", "role"]
    match experiment.quantity:
        case "post-pre_unlearn":
            return _before(frame, "pre_unlearn", ["model", "seed", "dose"])
        case "post-pre_finetune":
            return _before(frame, "pre_finetune", ["model"]).assign(baseline_dose=None)
        case "dose-dose":
            found = post[post["dose"] == 0]
            return _as_right(found, [*same, "method", "variant"])
        case "enhanced-plain":
            return _as_right(post[post["variant"] == "plain"], [*same, "method", "dose"])
        case "post-retrained":
            plain = (post["method"] == methods.reference()) & (post["variant"] == "plain")
            found = _as_right(post[plain], [*same, "dose"])
            others = post.loc[post["method"] != methods.reference(), ["method"]].drop_duplicates()
            return found.merge(others, how="cross")
        case "post-null":  # the contrast is over the null already; other scores have none
            above = all(metric_named(name).above_null for name in frame["metric"].unique())
            known = post if above else post.iloc[:0]
            keys = [*same, "method", "variant", "dose"]
            return known[keys].drop_duplicates().assign(right=0.0, baseline_dose=None)
        case "post-placebo":
            return _as_right(post[post["variant"] == PLACEBO], [*same, "method", "dose"])
        case "post-unattacked":
            return _as_right(unattacked, [*same, "method", "variant", "dose"])


def _of_families(frame: pd.DataFrame, roles: Collection[str]) -> pd.DataFrame:
    """Scores of targets and similar samples; other roles are repeated for each unlearned target."""
    found = frame[frame["role"].isin(FAMILY)]
    others = frame[frame["role"].isin(set(roles) - set(FAMILY))].drop(columns="target_index")
    if others.empty:
        return found
    after = others["phase"] == "post_unlearn"
    targets = others.loc[after, ["unlearned"]].drop_duplicates()
    before = others[~after].merge(
        targets.rename(columns={"unlearned": "target_index"}), how="cross"
    )
    unlearned = others[after].assign(target_index=others["unlearned"])
    return pd.concat([found, before, unlearned], ignore_index=True)


def _as_right(post: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    found = post[keys].assign(right=post["left"], baseline_dose=post["dose"])
    return found.drop_duplicates(keys)


def _post(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean score after unlearning of each cell's own target and of its similar samples."""
    by = ["model", "method", "variant", "seed", "unlearned", "dose"]
    return _means(own_targets(frame), by, "left", "samples")


def own_targets(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores after unlearning of each cell's own target family, if it alone was unlearned."""
    found = frame[(frame["phase"] == "post_unlearn") & (frame["variant"] != SEQUENCE)]
    return found[found["target_index"] == found["unlearned"]].copy()


def _before(frame: pd.DataFrame, phase: str, by: list[str]) -> pd.DataFrame:
    """Mean score of each target and of its similar samples in a phase before unlearning."""
    found = frame[frame["phase"] == phase].drop(columns="unlearned")
    found = found.rename(columns={"target_index": "unlearned"})
    means = _means(found, [*by, "unlearned"], "right", "right_samples")
    means = means.drop(columns="right_samples")
    return means.assign(baseline_dose=means["dose"]) if "dose" in by else means


def _means(frame: pd.DataFrame, by: list[str], value: str, samples: str) -> pd.DataFrame:
    # Null in other phases, so pandas holds them as floats.
    whole = [name for name in by if name not in ("model", "method", "variant")]
    grouped = frame.astype(dict.fromkeys(whole, "int64")).groupby([*by, "role"], as_index=False)
    return grouped.agg(**{value: ("value", "mean"), samples: ("value", "size")})
