"""Selects the samples, model states and methods that an image figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from distforget import methods
from distforget.analysis.comparisons import kind_of, own_targets
from distforget.report.study_tables import NothingToShowError, StudyTables
from distforget.report.words import method_name

Chosen = Literal["retrained", "not retrained", "enhanced"]
SSIM, NULL = "ssim", "ssim_null"
BEFORE = ("", "")
"""Method and variant of the model before unlearning, in `image_scores`."""
CONTROLS = {"other": "remaining", "unseen": "never trained"}


@dataclass(frozen=True)
class Setting:
    """The samples of a panel, and the dose that the model was trained with."""

    role: Literal["target", "similar"]
    dose: Literal["none", "all"]
    """The paper's W/O and W."""

    def number(self, tables: StudyTables) -> int | None:
        """The dose, if the study has it."""
        if self.dose == "none":
            return 0 if 0 in tables.doses else None
        return tables.doses[-1] or None

    def said(self, tables: StudyTables) -> str:
        """The head of a panel."""
        asked = "targets" if self.role == "target" else "similar"
        dose = self.number(tables)
        short = "W/O" if self.dose == "none" else "W"
        return f"{asked}, {short}" + (f" (dose {dose})" if dose is not None else "")


def letter(place: int) -> str:
    """(a), (b), ... (z), (aa), ... as the paper letters its panels."""
    return f"({chr(ord('a') + place % 26) * (1 + place // 26)})"


def check_settings(tables: StudyTables, settings: Sequence[Setting]) -> None:
    """Check that the study has what a figure shows.

    Raises:
        NothingToShowError: it has no models of any of the settings.
    """
    if all(setting.number(tables) is None for setting in settings):
        raise NothingToShowError(f"the study has no models of: {settings[0].said(tables)}")


def chosen_methods(tables: StudyTables, model: str, chosen: Chosen) -> dict[str, list[str]]:
    """Variants planned for a model by method, those with more samples unlearned later.

    Raises:
        NothingToShowError: none is planned.
    """
    nearest = tables.of_images.nearest
    kinds = ("plain", "enhanced") if chosen == "enhanced" else ("plain",)
    found: dict[str, list[str]] = {}
    for method, variant in tables.methods(model):
        wanted = chosen == "enhanced" or (method == methods.reference()) == (chosen == "retrained")
        if wanted and kind_of(variant) in kinds:
            found.setdefault(method, []).append(variant)
    if chosen == "enhanced":
        found = {m: v for m, v in found.items() if any((m, name) in nearest for name in v)}
    if not found:
        lacking = {"retrained": methods.reference(), "not retrained": "plain, not retrained"}.get(
            chosen, chosen
        )
        raise NothingToShowError(f"the study plans no {lacking} cells for {model}")
    more = {m: {v: nearest.get((m, v), 0) for v in variants} for m, variants in found.items()}
    return {method: sorted(variants, key=variants.__getitem__) for method, variants in more.items()}


def scheme_name(tables: StudyTables, method: str, variant: str, chosen: Chosen) -> str:
    """A method with the size of its forget set: retrain 1+3 unlearns a target and its 3 nearest."""
    nearest = tables.of_images.nearest.get((method, variant))
    if nearest is not None:
        return f"{method} 1+{nearest}"
    alone = ", target alone" if chosen == "enhanced" else ""
    return f"{method_name(method, variant)}{alone}"


def image_scores(tables: StudyTables, model: str, setting: Setting) -> pd.DataFrame:
    """SSIM and its null in one setting, one row per sample, model state and seed.

    Returns:
        Columns metric (ssim, ssim_null), method, variant (both "" before unlearning), seed, role,
        target (of the controls 0), sample_id, value. Controls, asked after each target is
        unlearned, hold the mean over targets.
    """
    dose = setting.number(tables)
    frame = tables.scores.to_pandas()
    frame = frame[(frame["model"] == model) & (frame["dose"] == dose)]
    frame = frame[frame["metric"].isin([SSIM, NULL])]
    family = frame[frame["role"] == setting.role]
    controls = frame[frame["role"].isin(list(CONTROLS))]
    rows = pd.concat(
        [
            family[family["phase"] == "pre_unlearn"],
            own_targets(family),
            controls[controls["phase"] != "pre_finetune"],
        ]
    )
    rows = rows.rename(columns={"target_index": "target"}).fillna(
        {"target": 0, "method": "", "variant": ""}
    )
    rows = rows[rows["target"] <= tables.targets].astype({"target": "int64", "seed": "int64"})
    by = ["metric", "method", "variant", "seed", "role", "target", "sample_id"]
    means: pd.DataFrame = rows.groupby(by, as_index=False)["value"].mean()
    return means
