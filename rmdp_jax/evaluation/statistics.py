"""Statistics over seeds: mean, standard error, bootstrap interval, and which algorithms a paired test tells apart.

And over episodes: half of the interval of a mean, and of the difference of two, by Student's t.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.01  # of the paired t-test by which the paper calls an algorithm best
CONFIDENCE = 0.95
RESAMPLES = 9999
_SEED = 0  # of the resampling, so that the same values always have the same interval


class Summary(NamedTuple):
    """Of the same quantity in several runs; what takes two runs is None where there are fewer."""

    number: int
    mean: float | None  # None of no values
    standard_error: float | None  # of the mean
    low: float | None  # 95% bootstrap interval of the mean
    high: float | None


def summarize_values(values: Iterable[float]) -> Summary:
    """Mean of `values` (r,), one per run, with its standard error and 95% bootstrap interval.

    The standard error is that of `scipy.stats.sem`, s / sqrt(r). The interval is bias-corrected and accelerated (BCa, Efron
    1987), or that of the plain percentiles where BCa has no answer; it is the same at every call. Equal values have a
    standard error of 0 and an interval of no width.
    """
    array = np.asarray(list(values), float)
    if array.size < 2:
        return Summary(array.size, float(array[0]) if array.size else None, None, None, None)
    low, high = _interval(array)
    return Summary(array.size, float(array.mean()), float(stats.sem(array)), low, high)


def half_width(deviation: ArrayLike, number: int) -> np.ndarray:
    """Half of the `CONFIDENCE` interval of the mean of `number` values, at least 2, by Student's t.

    Args:
        deviation: (...) of the values, with number - 1 in the denominator; the interval has its unit.
        number: of values.
    """
    return stats.t.ppf((1 + CONFIDENCE) / 2, number - 1) * np.asarray(deviation, float) / number**0.5


def half_width_of_difference(a: ArrayLike, b: ArrayLike, number: int) -> np.ndarray:
    """Half of the `CONFIDENCE` interval of the difference of two means of `number` independent values each, after Welch (1947).

    Args:
        a, b: (...) deviations of the values of either, as in `half_width`.
        number: of values of each, at least 2.
    """
    first, second = (np.asarray(x, float) ** 2 / number for x in (a, b))
    total, squares = first + second, first**2 + second**2
    freedom = (number - 1) * np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1.0), 1.0)
    return stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(total)


def paired_p(a: Mapping[int, float], b: Mapping[int, float]) -> float | None:
    """Two-sided p of a paired t-test over the seeds that `a` and `b` have in common; None with fewer than two.

    Args:
        a, b: value by seed.

    Returns:
        p of "the mean difference is zero" (`scipy.stats.ttest_rel`). Where every pair differs by the same amount, t is
        infinite and p is 0, or 1 if that amount is zero.
    """
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2:
        return None
    first, second = (np.array([values[seed] for seed in seeds], float) for values in (a, b))
    difference = first - second
    if np.allclose(difference, difference[0], rtol=1e-9, atol=1e-12):
        return 1.0 if abs(difference[0]) <= 1e-12 else 0.0
    return float(stats.ttest_rel(first, second).pvalue)


def best_of(welfare: Mapping[str, Mapping[int, float]], level: float = LEVEL) -> set[str]:
    """The name with the highest mean, and all that a paired t-test at `level` does not separate from it (the paper's bold).

    Args:
        welfare: {name: {seed: welfare}}; names without a seed are left out.
        level: a name is out when its p against the highest mean is below this, or there are too few seeds for a test.
    """
    means = {name: float(np.mean(list(values.values()))) for name, values in welfare.items() if values}
    if not means:
        return set()
    leader = max(means, key=lambda name: means[name])
    p = {name: paired_p(welfare[leader], welfare[name]) for name in means}
    return {name for name, value in p.items() if name == leader or (value is not None and value >= level)}


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval of the mean of at least two values."""
    if np.ptp(values) == 0.0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            low, high = stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(_SEED),
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            break
    return float(low), float(high)
