"""Reports an audit: each request in plain words, on the terminal and on two printed pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape as plain
from rich.padding import Padding

from distforget import schemas
from distforget.analysis.requests import LEAST_EFFECT, QUOTED, WORDS, Answered, Kept
from distforget.auditing import ALONE, ENHANCED, TOGETHER
from distforget.disk import write_at_once, write_lines

SHOWN = 12
"""Requests on the first printed page."""
DETAILED = 3
"""Requests whose evidence is on the second printed page, the most urgent ones."""
URGENCY = ("kept", "known", "told", "in part", "forgotten", "unknown")
WAYS = {
    ALONE: "the request alone",
    TOGETHER: "with its similar samples",
    ENHANCED: "with its similar samples and noise",
}
COLOURS = {
    "kept": "#b3261e", "known": "#b3261e", "told": "#b3261e", "in part": "#8a5a00",
    "forgotten": "#1b6e3c", "unknown": "#555555",
}  # fmt: skip


def verdict(one: Answered) -> str:
    """The verdict in words, with the number of similar samples that matter."""
    if one.verdict == "kept":
        return f"still known, through {_samples(one.still_known)} that the model still knows"
    if one.verdict == "told":
        tell = "tells" if one.still_known == 1 else "tell"
        return f"forgotten itself, but {_samples(one.still_known)} still {tell} it"
    return WORDS[one.verdict]


def _samples(count: int) -> str:
    return f"{count} similar sample{'s' * (count != 1)}"


def advice(one: Answered) -> str:
    """What to do about a request, in a sentence."""
    if one.verdict == "unknown":
        return "Nothing: the model does not know it."
    if one.recommended:
        many = f"{len(one.recommended)} of its {_samples(len(one.kept))}"
        noise = " and noise" if one.best == ENHANCED else ""
        return (
            f"Unlearn it with {many}{noise}, as on the recommended forget list: knowledge of it "
            f"was then {one.after[one.best]:.2f}."
        )
    if one.verdict == "told":
        return "Look at the similar samples that still tell it; unlearn those that state the fact."
    if one.verdict == "forgotten":
        return "Unlearning it alone is enough."
    if not one.request.similar:
        return "Nothing similar was found in the data; try another method or more steps."
    return (
        "Unlearning its similar samples, too, made no measurable difference; try another method or "
        "more steps."
    )


def effects(one: Answered) -> str:
    """Knowledge before and after, and damage, as a sentence."""
    after = [f"{one.after[v]:.2f} ({said})" for v, said in WAYS.items() if v in one.after]
    damage = one.damage[ALONE]
    lost = f"{abs(damage):.2f} {'less' if damage < 0 else 'more'}"
    return (
        f"Knowledge: {one.before:.2f} before; after unlearning: {', '.join(after)}. "
        f"Other samples: {lost} after unlearning it alone."
    )


def sure(one: Answered) -> str:
    """How sure the part of the similar samples is."""
    if not one.request.similar:
        return "There are no similar samples in the data that could keep it alive."
    least = f"unlearning an unrelated sample changed it by up to {one.noise:.2f}"
    if one.sureness == "no measurable difference":
        return f"Similar samples: no measurable difference ({one.effect:.2f}; {least})."
    of = "of the similar samples" if one.verdict == "told" else "of it"
    return (
        f"Similar samples: {one.effect:.2f} less {of} is known if those on the list are unlearned, "
        f"too, which is {one.sureness} ({least})."
    )


def quoted(one: Kept, length: int = 110) -> str:
    """A similar sample in one line."""
    said = " ".join(f"{one.row['question']} {one.row['answer']}".split())
    return said if len(said) <= length else said[: length - 1] + "…"


def matter(one: Kept) -> str:
    """Why a similar sample matters, in a few words."""
    known = f"knowledge of it {one.knowledge:.2f}"
    if one.effect is None:
        return known
    if abs(one.effect) < LEAST_EFFECT:
        return f"{known}; as much of the request with its group unlearned"
    way = "less" if one.effect > 0 else "more"
    return f"{known}; {abs(one.effect):.2f} {way} of the request with its group unlearned"


def print_requests(found: Sequence[Answered], console: Console) -> None:
    """Print each request in plain words."""
    for one in found:
        target = one.request.target
        console.print(f"\n[bold]{plain(one.request.target_id)}[/bold]  {plain(target['question'])}")
        lines = [f"[bold]{verdict(one)}[/bold]", effects(one), sure(one)]
        lines += [
            f"  {number}. {plain(quoted(kept))} [dim]({matter(kept)})[/dim]"
            for number, kept in enumerate(one.kept[:QUOTED], 1)
        ]
        lines.append(f"What to do: {advice(one)}")
        for line in lines:
            console.print(Padding(line, (0, 0, 0, 2)), highlight=False)


def table(found: Sequence[Answered]) -> pa.Table:
    """Table `requests`."""
    rows = [
        {
            "target_id": one.request.target_id,
            "verdict": one.verdict,
            "similar": len(one.request.similar),
            "still_known": one.still_known,
            "before": one.before,
            "alone": one.after[ALONE],
            "together": one.after.get(TOGETHER),
            "enhanced": one.after.get(ENHANCED),
            "noise": one.noise,
            "damage": one.damage[ALONE],
            "damage_together": one.damage.get(TOGETHER),
            "recommended_way": one.best,
            "after_recommended": one.after[one.best],
            "damage_recommended": one.damage[one.best],
            "sureness": one.sureness,
            "recommended": [kept.row["sample_id"] for kept in one.recommended],
        }
        for one in found
    ]
    return schemas.from_rows("requests", rows)


def write_requests(
    found: Sequence[Answered], about: Mapping[str, Any], folder: Path
) -> dict[str, Path]:
    """Write the table, the recommended forget list and the page; returns what is where.

    Args:
        about: what the page's head says, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "table": folder / "requests.parquet",
        "recommended forget list": folder / "forget_list.jsonl",
        "page": folder / "audit.html",
    }
    schemas.write(table(found), "requests", paths["table"])
    write_lines(paths["recommended forget list"], forget_list(found))
    write_at_once(paths["page"], page(found, about).encode())
    return paths


def forget_list(found: Sequence[Answered]) -> list[dict[str, Any]]:
    """The requests that the model knows, each followed by the samples to unlearn with it."""
    rows: list[dict[str, Any]] = []
    for one in found:
        if one.verdict != "unknown":
            rows.append({**one.request.target, "why": "requested"})
            rows += [{**kept.row, "why": matter(kept)} for kept in one.recommended]
    return rows


def page(found: Sequence[Answered], about: Mapping[str, Any]) -> str:
    """The audit as HTML that prints on two pages: verdicts, then the evidence of some."""
    urgent = sorted(found, key=lambda one: URGENCY.index(one.verdict))
    counts = {word: sum(one.verdict == word for one in found) for word in URGENCY}
    forgotten = counts["forgotten"] + counts["unknown"]
    head = f"{forgotten} of {len(found)} requests are forgotten or were never known"
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in about.items())
    rows = "".join(_row(one) for one in urgent[:SHOWN])
    more = len(found) - SHOWN
    left = f"<p>{more} further requests are in requests.parquet.</p>" if more > 0 else ""
    evidence = "".join(_evidence(one) for one in urgent[:DETAILED])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Audit</title>'
        f"<style>{CSS}</style></head><body><section><h1>{escape(head)}</h1><dl>{facts}</dl>"
        "<table><thead><tr><th>request</th><th>verdict</th><th>knowledge before → after</th>"
        f"<th>what to do</th></tr></thead><tbody>{rows}</tbody></table>{left}"
        "<p class=note>Knowledge: 0 is what the model said before it was fine-tuned (or nothing in "
        "common with the expected answer, if that model was not given), 1 is the expected answer "
        "word for word. After: unlearned alone; as recommended, if that differs.</p></section>"
        f"<section class=evidence><h2>Evidence: the most urgent requests</h2>{evidence}</section>"
        "</body></html>"
    )


def _row(one: Answered) -> str:
    best = f"; {one.after[one.best]:.2f}" if one.best != ALONE else ""
    return (
        f"<tr><td><b>{escape(one.request.target_id)}</b><br>"
        f"{escape(_short(one.request.target['question'], 90))}</td>"
        f'<td style="color:{COLOURS[one.verdict]}"><b>{escape(verdict(one))}</b></td>'
        f"<td class=number>{one.before:.2f} → {one.after[ALONE]:.2f}{best}</td>"
        f"<td>{escape(advice(one))}</td></tr>"
    )


def _evidence(one: Answered) -> str:
    ways = {"": "before", **WAYS}
    ways.setdefault(one.best, "as recommended")
    said = "".join(
        f"<tr><td>{escape(way)}</td><td>{escape(_short(one.answers[variant], 160))}</td></tr>"
        for variant, way in ways.items()
        if variant in one.answers
    )
    kept = "".join(
        f"<li>{escape(quoted(sample, 150))} <small>({escape(matter(sample))})</small></li>"
        for sample in one.kept[:QUOTED]
    )
    return (
        f"<article><h3>{escape(one.request.target_id)}: "
        f"{escape(_short(one.request.target['question'], 120))}</h3>"
        f'<p style="color:{COLOURS[one.verdict]}"><b>{escape(verdict(one))}</b></p>'
        f"<p>{escape(effects(one))} {escape(sure(one))}</p>"
        f"<table class=said><thead><tr><th>unlearned</th><th>the model answers</th></tr></thead>"
        f"<tbody>{said}</tbody></table>"
        + (f"<p>Similar samples that matter most:</p><ol>{kept}</ol>" if kept else "")
        + f"<p><b>What to do.</b> {escape(advice(one))}</p></article>"
    )


def _short(text: str, length: int) -> str:
    said = " ".join(text.split())
    return said if len(said) <= length else said[: length - 1] + "…"


CSS = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; } h3 { font-size: 1rem; margin: 0 0 .2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th { text-align: left; border-bottom: 2px solid #8884; padding: .25rem .5rem; }
td { vertical-align: top; border-bottom: 1px solid #8883; padding: .3rem .5rem;
     overflow-wrap: anywhere; }
.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.note, small { font-size: .8rem; opacity: .7; }
article { border: 1px solid #8884; border-radius: 6px; padding: .7rem 1rem; margin: .8rem 0; }
article p, article ol { margin: .3rem 0; }
.said td:first-child { white-space: nowrap; }
@media (prefers-color-scheme: dark) { td b { filter: brightness(1.6); } }
@page { size: A4; margin: 12mm; }
@media print {
  html { font-size: 10.5px; }
  body { font-size: 1rem; margin: 0; max-width: none; padding: 0; }
  .evidence { break-before: page; }
  article { break-inside: avoid; padding: .4rem .7rem; margin: .5rem 0; }
}
"""
