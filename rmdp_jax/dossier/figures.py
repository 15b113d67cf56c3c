"""Numbers of a dossier as JSON takes them: six significant digits, with their 95% intervals."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rmdp_jax.evaluation.statistics import CONFIDENCE, half_width


def number(value: Any) -> float | None:
    """Six significant digits; None of what is not there, or not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{float(value):.6g}")


def numbers(values: ArrayLike | None) -> list[float | None] | None:
    """`number` of each, None of none."""
    return None if values is None else [number(value) for value in np.asarray(values, float).tolist()]


def with_interval(values: ArrayLike) -> dict[str, float | None]:
    """Mean of values (e,), one an episode, and its 95% interval by Student's t; no interval of a single one."""
    array = np.asarray(values, float)
    width = half_width(array.std(ddof=1), len(array)) if len(array) > 1 else None
    return around(array.mean(), width)


def around(mean: Any, width: Any) -> dict[str, float | None]:
    """A mean and the ends of its interval, half of which is `width`; None where that is not known."""
    low, high = (None, None) if width is None else (mean - width, mean + width)
    return {"mean": number(mean), "low": number(low), "high": number(high)}


def share(flags: ArrayLike) -> dict[str, Any]:
    """How many of the episodes (e,) bool, and their share with its 95% interval (Wilson 1927)."""
    flags = np.asarray(flags, bool)
    interval = stats.binomtest(int(flags.sum()), len(flags)).proportion_ci(CONFIDENCE, method="wilson")
    ends = {"low": number(interval.low), "high": number(interval.high)}
    return {"number": int(flags.sum()), "of": len(flags), "share": number(flags.mean()), **ends}
