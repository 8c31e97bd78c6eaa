"""The two aims of unlearning as numbers: the target is forgotten, and the rest is kept."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from distforget.analysis.comparisons import own_targets

KEPT = ("other", "neighbour")


@dataclass(frozen=True)
class Aims:
    """Mean scores over targets, and how far they are from the aims."""

    target: float
    """Mean score of the targets after unlearning."""
    floor: float
    """Mean score of the targets before fine-tuning."""
    kept: float
    """Mean score of other samples and neighbours after unlearning; both roles count equally."""
    ceiling: float
    """Mean score of the same samples before unlearning."""
    forget_gap: float
    """Mean distance of the targets from their floors, above or below."""
    retain_gap: float
    """Mean loss of the kept samples; both roles count equally, and gains count as 0."""


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
    """The pairs that no other pair beats: none is as low in both numbers and lower in one."""
    return [
        i
        for i, (a, b) in enumerate(gaps)
        if not any(other != (a, b) and other[0] <= a and other[1] <= b for other in gaps)
    ]
