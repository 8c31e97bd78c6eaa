"""What unlearning is for, in two numbers a variant: the target forgotten, what should stay kept."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from distforget.analysis.comparisons import own_targets

KEPT = ("other", "neighbour")


@dataclass(frozen=True)
class Aims:
    """Mean scores over targets, and how far they are from the aims."""

    target: float
    """Of the target after unlearning."""
    floor: float
    """Of the target before fine-tuning."""
    kept: float
    """Of other samples and neighbours after unlearning, roles alike."""
    ceiling: float
    """Of the same before unlearning."""
    forget_gap: float
    """Mean distance of the targets from their floors, above or below."""
    retain_gap: float
    """Mean of what the kept samples lost, roles alike; gains do not count."""


def aims(scores: pa.Table, metric: str) -> dict[str, Aims]:
    """Both aims for each variant of the one method, model and dose in `scores`."""
    frame = scores.to_pandas()
    frame = frame[frame["metric"] == metric]
    after = frame[frame["phase"] == "post_unlearn"]
    floor, ceiling = (
        frame[frame["phase"] == phase].groupby("sample_id")["value"].first()
        for phase in ("pre_finetune", "pre_unlearn")
    )
    found = {}
    for variant, mine in after.groupby("variant"):
        targets = own_targets(mine[mine["role"] == "target"])
        low = targets["sample_id"].map(floor)
        kept = mine[mine["role"].isin(KEPT)]
        kept = kept.assign(before=kept["sample_id"].map(ceiling))
        kept["lost"] = (kept["before"] - kept["value"]).clip(lower=0)
        roles = kept.groupby("role")[["value", "before", "lost"]].mean().mean()
        found[str(variant)] = Aims(
            target=float(targets["value"].mean()),
            floor=float(low.mean()),
            kept=float(roles["value"]),
            ceiling=float(roles["before"]),
            forget_gap=float((targets["value"] - low).abs().mean()),
            retain_gap=float(roles["lost"]),
        )
    return found


def front(gaps: list[tuple[float, float]]) -> list[int]:
    """Which pairs no other pair is at least as low as in both, and lower in one."""
    return [
        i
        for i, (a, b) in enumerate(gaps)
        if not any(other != (a, b) and other[0] <= a and other[1] <= b for other in gaps)
    ]
