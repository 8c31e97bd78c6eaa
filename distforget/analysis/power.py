"""How large a difference must be so that a study of this size can decide on it."""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

POWER = 0.8


def smallest_effect(targets: int, verdicts: int, level: float = 0.05) -> float:
    """Mean difference, in standard deviations over targets, that is decided in 80 % of studies.

    By Student's t, two-sided, with the least p-value of so many verdicts corrected by Holm.

    Args:
        targets: at least 3.
        verdicts: how many are corrected together.
    """
    freedom = targets - 1
    needed = stats.t.isf(level / (2 * verdicts), freedom)

    def lacking(effect: float) -> float:
        reached: float = stats.nct.sf(needed, freedom, effect * np.sqrt(targets))
        return reached - POWER

    most = 1.0
    while lacking(most) < 0:
        most *= 2
    return float(optimize.brentq(lacking, 0.0, most, xtol=1e-6))
