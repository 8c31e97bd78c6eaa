"""Says of each request of an audit whether it is forgotten, what keeps it alive, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from distforget.analysis.comparisons import knowledge_metrics
from distforget.analysis.states import unattacked
from distforget.auditing import ALONE, ENHANCED, GROUP, TOGETHER, Request
from distforget.method_choice import PLACEBO
from distforget.study import Study

KNOWN, TRACES = 0.5, 0.25
"""Knowledge from which a sample is known, and below which it is not. 0 is what the base model
says (or nothing in common, if no base is given), 1 is the expected answer word for word."""
LEAST_EFFECT = 0.1
"""A change of knowledge that counts, if chance makes smaller ones."""
TOLERATED = 0.1
"""A way to unlearn is not recommended if it costs other samples so much more than another."""
QUOTED = 3

WORDS = {
    "unknown": "was not known before unlearning: there is nothing to forget",
    "forgotten": "forgotten",
    "told": "forgotten itself, but similar samples still tell it",
    "in part": "forgotten in part",
    "kept": "still known through similar samples",
    "known": "still known: the method is too weak, or the model knows it from elsewhere",
}
"""What each verdict means."""


@dataclass(frozen=True)
class Kept:
    """A similar sample that may keep a request alive."""

    row: Mapping[str, Any]
    """As the file that `similar` wrote has it."""
    knowledge: float
    """Of this sample, after the target was unlearned alone."""
    effect: float | None
    """How much less of the target is known if the sample's group is unlearned, too; None: its group
    was not unlearned in turn."""


@dataclass(frozen=True)
class Answered:
    """What is found about one request."""

    request: Request
    verdict: str
    """A key of `WORDS`."""
    before: float
    """Knowledge of the target; see `KNOWN`."""
    after: Mapping[str, float]
    """Knowledge of the target after each variant of unlearning that is done."""
    answers: Mapping[str, str]
    """What the model says to the target's question: before, and after each variant."""
    damage: Mapping[str, float]
    """Change of the knowledge of other samples, mean; negative: they lost."""
    noise: float
    """Largest change of a target's knowledge when an unrelated sample was unlearned."""
    kept: Sequence[Kept]
    """Similar samples, those that matter most first."""
    recommended: Sequence[Kept]
    """Samples that should be unlearned with the target."""
    best: str = ALONE
    """The variant that leaves least of the target (if it is forgotten, of the samples that still
    tell it), of those that lower it beyond chance and do no more damage."""
    effect: float = 0.0
    """How much less the best variant leaves than unlearning the target alone, chance or not."""

    @property
    def still_known(self) -> int:
        """Number of similar samples that are known after the target was unlearned alone."""
        return sum(one.knowledge >= KNOWN for one in self.kept)

    @property
    def sureness(self) -> str:
        """How the effect compares with what chance does."""
        least = max(LEAST_EFFECT, self.noise)
        if self.effect < least:
            return "no measurable difference"
        return "clear" if self.effect >= 2 * least else "likely"


@dataclass
class _Knowledge:
    """Knowledge by sample and state."""

    values: dict[tuple[str, int, int], float] = field(default_factory=dict)
    """By variant ('' before unlearning), unlearned target (0 before) and sample_id."""

    def of(self, variant: str, unlearned: int, sample_id: int) -> float:
        return self.values.get((variant, unlearned, sample_id), float("nan"))


def answered(
    study: Study, requests: Sequence[Request], tables: Mapping[str, pa.Table]
) -> list[Answered]:
    """The findings of each request whose cells are done, in the order of the requests.

    Args:
        tables: samples, scores, answers and cells of the study.
    """
    samples = tables["samples"].to_pandas()
    scores = unattacked(tables["scores"])
    metric = knowledge_metrics(study.metric, scores)[0]
    found = _knowledge(scores.to_pandas(), metric)
    said = tables["answers"].to_pandas()
    cells = tables["cells"].to_pandas()
    done = cells[cells["state"] == "done"]
    noise = _noise(found, samples, done)
    return [
        _answer(number, request, samples, found, said, done, noise)
        for number, request in enumerate(requests, 1)
        if ALONE in done.loc[done["unlearned"] == number, "variant"].to_numpy()
    ]


def _knowledge(scores: pd.DataFrame, metric: str) -> _Knowledge:
    """Scores between what the base model reaches and 1, the floor of each sample being 0."""
    mine = scores[scores["metric"] == metric]
    floors = mine[mine["phase"] == "pre_finetune"].set_index("sample_id")["value"].to_dict()
    found = _Knowledge()
    for row in mine[mine["phase"] != "pre_finetune"].to_dict("records"):
        floor = min(floors.get(row["sample_id"], 0.0), 0.99)
        variant, unlearned = "", 0
        if row["phase"] == "post_unlearn":
            variant, unlearned = row["variant"], int(row["unlearned"])
        key = (variant, unlearned, row["sample_id"])
        found.values[key] = (row["value"] - floor) / (1 - floor)
    return found


def _noise(found: _Knowledge, samples: pd.DataFrame, done: pd.DataFrame) -> float:
    ids = samples[samples["role"] == "target"].set_index("target_index")["sample_id"]
    changes = [
        abs(found.of(PLACEBO, t, ids[t]) - found.of("", 0, ids[t]))
        for t in done.loc[done["variant"] == PLACEBO, "unlearned"]
    ]
    return max(changes, default=0.0)


def _answer(
    number: int,
    request: Request,
    samples: pd.DataFrame,
    found: _Knowledge,
    said: pd.DataFrame,
    done: pd.DataFrame,
    noise: float,
) -> Answered:
    mine = samples[samples["target_index"] == number]
    target = int(mine.loc[mine["role"] == "target", "sample_id"].iloc[0])
    others = samples.loc[samples["role"] == "other", "sample_id"].tolist()
    similar = mine[mine["role"] == "similar"].set_index("similar_rank")["sample_id"].to_dict()
    variants = [v for v in done.loc[done["unlearned"] == number, "variant"] if v != PLACEBO]
    after = {variant: found.of(variant, number, target) for variant in variants}
    ranks_of = {f"{GROUP}{n}": ranks for n, ranks in enumerate(request.groups, 1)}
    every = list(range(1, len(request.similar) + 1))
    ranks_of |= {TOGETHER: every, ENHANCED: every}
    effects = {
        rank: after[ALONE] - after[variant]
        for variant in variants
        if variant.startswith(GROUP)
        for rank in ranks_of[variant]
    }
    kept = [
        Kept(row, found.of(ALONE, number, similar[rank]), effects.get(rank))
        for rank, row in enumerate(request.similar, 1)
    ]
    before = found.of("", 0, target)
    verdict = _verdict(before, after[ALONE], kept)
    left = after
    possible = [v for v in variants if v == ALONE or v in ranks_of]
    if verdict == "told":
        telling = [n for n in similar.values() if found.of(ALONE, number, n) >= KNOWN]
        left = {v: _mean(found.of(v, number, one) for one in telling) for v in variants}
        possible = [v for v in possible if after[v] < TRACES]  # the target stays forgotten
    damage = {v: _damage(found, v, number, others) for v in variants}
    possible = [v for v in possible if damage[v] >= damage[ALONE] - TOLERATED]
    best = min(possible, key=lambda variant: left[variant])
    effect = left[ALONE] - left[best]
    if effect < max(LEAST_EFFECT, noise):
        best = ALONE
    chosen = {kept[rank - 1].row["sample_id"] for rank in ranks_of.get(best, ())}
    order = sorted(kept, key=lambda one: (-(one.effect or 0.0), -one.knowledge))
    return Answered(
        request=request,
        verdict=verdict,
        before=before,
        after=after,
        answers=_said(said, number, target, variants),
        damage=damage,
        noise=noise,
        kept=order,
        recommended=[one for one in order if one.row["sample_id"] in chosen],
        best=best,
        effect=effect,
    )


def _verdict(before: float, after: float, kept: Sequence[Kept]) -> str:
    if before < TRACES:
        return "unknown"
    told = any(one.knowledge >= KNOWN for one in kept)
    if after >= KNOWN:
        return "kept" if told else "known"
    if after >= TRACES:
        return "in part"
    return "told" if told else "forgotten"


def _damage(found: _Knowledge, variant: str, number: int, others: Sequence[int]) -> float:
    return _mean(found.of(variant, number, one) - found.of("", 0, one) for one in others)


def _mean(values: Iterable[float]) -> float:
    return float(pd.Series(list(values)).mean())


def _said(
    answers: pd.DataFrame, number: int, target: int, variants: Sequence[str]
) -> dict[str, str]:
    mine = answers[(answers["sample_id"] == target) & (answers["attack"] == "none")]
    before = mine[mine["phase"] == "pre_unlearn"]
    after = mine[(mine["phase"] == "post_unlearn") & (mine["unlearned"] == number)]
    said = after.set_index("variant")["answer"].to_dict()
    found = {"": before["answer"].iloc[0]} if len(before) else {}
    return found | {variant: said[variant] for variant in variants if variant in said}
