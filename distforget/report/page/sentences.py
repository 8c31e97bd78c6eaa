"""Puts verdicts into sentences with their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from distforget import methods
from distforget.analysis.comparisons import Experiment, Quantity
from distforget.analysis.verdicts import TOO_FEW, Verdict
from distforget.metrics import FACT_RECALL
from distforget.report.study_tables import StudyTables
from distforget.report.words import method_name

SIDES: dict[Quantity, tuple[str, str]] = {
    "post-pre_unlearn": ("after unlearning", "before"),
    "post-pre_finetune": ("after unlearning", "before fine-tuning"),
    "dose-dose": ("with {dose} similar samples in the data", "with none"),
    "enhanced-plain": ("after the enhanced scheme", "after the plain method"),
    "post-retrained": ("after unlearning", "in a model trained without the target"),
    "post-placebo": ("after unlearning", "after unlearning an unrelated sample instead"),
    "post-null": ("after unlearning", "for never-trained samples"),
    "post-unattacked": ("after the attack", "without it"),
}
"""What the two numbers of a verdict stand for."""

ORDER = ("supported", "contradicted", "undecided")
REASONS = {TOO_FEW: "too few targets to tell", "too small": "smaller than {margin:g}, surely"}


def line(verdict: Verdict) -> str:
    """The numbers of a verdict: both sides, the difference with its interval, agreement."""
    left, right = SIDES[verdict.experiment.quantity]
    known = "" if verdict.low != verdict.low else (
        f" (95 % interval {signed(verdict.low)} to {signed(verdict.high)})"
    )  # fmt: skip
    missing = verdict.planned - verdict.n
    said = [
        f"{verdict.left:.2f} {left.format(dose=verdict.dose)}, {verdict.right:.2f} {right}: "
        f"{signed(verdict.estimate)}{known}",
        f"{verdict.agree} of {counted(verdict.targets, 'target')} as claimed"
        + ("" if verdict.exact_p is None else f" (exact test: p {verdict.exact_p:.3f})"),
    ]
    if missing:
        said.append(f"{missing} of {verdict.planned} cells missing")
    if verdict.diverged:
        said.append(f"{verdict.diverged} of {verdict.n} diverged")
    return "; ".join(said)


def word(verdict: Verdict) -> str:
    """The verdict, with the reason if it is undecided."""
    reason = REASONS.get(verdict.reason, verdict.reason).format(margin=verdict.margin)
    return f"{verdict.word}: {reason}" if reason else verdict.word


def claim(experiment: Experiment, found: Sequence[Verdict]) -> str:
    """A claim's verdicts in one sentence."""
    words = Counter(v.word for v in found)
    said = ", ".join(f"{name} {words[name]}" for name in sorted(words, key=ORDER.index))
    reasons = Counter(v.reason for v in found if v.reason)
    why = f" ({'; '.join(REASONS[r].format(margin=found[0].margin) for r in reasons)})" * (
        len(words) == 1 and bool(reasons)
    )
    of = f"all {len(found)}" if len(found) > 1 else "the only one"
    begins = f"{said.split()[0]} for {of}{why}" if len(words) == 1 else f"{said} of {len(found)}"
    family = found[0].family
    more = f" {family} verdicts are corrected together." * (family > len(found))
    return f"{begins[0].upper()}{begins[1:]}; {span([v.estimate for v in found])}.{more}"


def lead(tables: StudyTables) -> list[str]:
    """The opening sentences: the main question, all verdicts, and the reference."""
    first, *others = tables.metrics
    found = [v for v in tables.verdicts if v.metric == first]
    if not found:
        return ["Nothing can be compared yet: no cell is done."]
    said = []
    main = [v for v in found if v.experiment.quantity == "dose-dose"]
    if tables.track == "text":  # there it is the reference, in images the method of the paper
        main = [v for v in main if v.method != methods.reference()]
    if main:
        rises = [v.estimate for v in main]
        more = sum(rise >= tables.margin for rise in rises)
        what = "methods" if len(tables.paths) == 1 else "pairs of model and method"
        said.append(
            f"With the similar samples in the data, more of the target is left after unlearning "
            f"than without them for {more} of {len(main)} {what} (by {tables.margin:g} or more in "
            f"{first}; {span(rises)})."
        )
    words = Counter(v.word for v in found)
    reasons = Counter(v.reason for v in found if v.reason)
    why = ", ".join(
        f"{n} {REASONS[r].format(margin=tables.margin)}" for r, n in reasons.most_common()
    )
    said.append(
        f"{counted(len(found), 'verdict')} on {first}: {words['supported']} supported, "
        f"{words['contradicted']} contradicted, {words['undecided']} undecided"
        + (f" ({why})." if why else ".")
    )
    if FACT_RECALL in tables.metrics:
        said.append(
            f"{FACT_RECALL} is the share of a sample's facts that an answer states. The paper's "
            f"score, {tables.metric}, counts words instead: it also rises for an answer of the "
            "right form about something else. Its verdicts follow below."
        )
    elif others:
        said.append(
            f"{first} counts the words that an answer shares with the true one, not its facts: an "
            f"answer of the right form may score high and know nothing. So {others[0]} of the true "
            "answer stands beside it. A column `facts` in the data gives verdicts on facts."
        )
    return said


def reference(tables: StudyTables) -> str:
    """Says whether there is a retrained model for each target, the reference for forgetting."""
    planned = tables.planned
    again = planned[(planned["method"] == methods.reference()) & (planned["variant"] == "plain")]
    if again.empty:
        return (
            "The retrained reference is missing: the study has no method retrain, so how far a "
            "model is from one that never saw the target is not known."
        )
    cells = tables.outcomes
    done = cells[(cells["method"] == methods.reference()) & (cells["variant"] == "plain")]
    done = done[done["state"] == "done"]
    targets, there = planned["unlearned"].nunique(), done["unlearned"].nunique()
    if not there:
        return "The retrained reference is missing: none of its cells is done."
    which = "every target" if there == targets else f"{there} of {targets} targets"
    said = f"Retrained reference: for {which}, a model was trained again without it"
    return f"{said}; for the others it is missing." if there < targets else f"{said}."


def span(differences: Sequence[float]) -> str:
    """'differences −0.20 to +0.53', or the only one."""
    least, most = signed(min(differences)), signed(max(differences))
    return f"difference {least}" if least == most else f"differences {least} to {most}"


def signed(value: float) -> str:
    """A difference with its sign: +0.53, −0.20."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def counted(count: int, what: str) -> str:
    """'1 target', '2 targets'."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def name(verdict: Verdict, models: int, doses: int) -> str:
    """Names a line of a claim: the method and, if there are several, model and dose."""
    parts = [verdict.model] * (models > 1) + [method_name(verdict.method, verdict.variant)]
    return ", ".join(parts + [f"dose {verdict.dose}"] * (doses > 1))
