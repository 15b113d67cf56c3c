"""Statistics over seeds: mean, standard error, bootstrap interval, and what a paired test finds significant, or could find.

Over tasks: interquartile mean and probability of improvement, with stratified bootstrap intervals (Agarwal et al., 2021).
Over episodes: half of the interval of a mean, and of the difference of two, by Student's t.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.01  # of the paired t-test by which the paper calls an algorithm best
POWER = 0.8  # chance with which a difference that a test "could find" is found significant
CONFIDENCE = 0.95
RESAMPLES = 9999
STRATIFIED = 2000  # resamples over tasks
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


def half_width_of_difference(a: ArrayLike, b: ArrayLike, number: int, *, differences: int = 1) -> np.ndarray:
    """Half of the `CONFIDENCE` interval of the difference of two means of `number` independent values each, after Welch (1947).

    Args:
        a, b: (...) deviations of the values of either, as in `half_width`.
        number: of values of each, at least 2.
        differences: of so many the interval holds all at once, by Bonferroni; for one that was chosen among them.
    """
    first, second = (np.asarray(x, float) ** 2 / number for x in (a, b))
    total, squares = first + second, first**2 + second**2
    freedom = (number - 1) * np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1.0), 1.0)
    return stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * differences), freedom) * np.sqrt(total)


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


def smallest_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> float | None:
    """The mean difference that the paired t-test of `paired_p` at `level` would find with a chance of `POWER`, about.

    By the spread that the differences have, s (t(1 - level / 2) + t(POWER)) / sqrt(r) with quantiles of Student's t at r - 1
    degrees of freedom (Zar, Biostatistical Analysis, 7.7); None with fewer than two common seeds.

    Args:
        a, b: value by seed, in r seeds in common.
        level: of the test.
    """
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2:
        return None
    deviation = np.std([a[seed] - b[seed] for seed in seeds], ddof=1)
    quantiles = stats.t.ppf(1 - level / 2, len(seeds) - 1) + stats.t.ppf(POWER, len(seeds) - 1)
    return float(deviation * quantiles / len(seeds) ** 0.5)


def interquartile_mean(scores: Mapping[str, ArrayLike]) -> Summary:
    """Mean of the middle half of all scores, with the interval of a bootstrap that resamples the runs of each task.

    Args:
        scores: {task: (r,) a score of each run}, in a unit that tasks share, such as a share of the bound.

    Returns:
        The mean, its standard error over resamples, and the 95% percentile interval; of fewer than two runs the mean alone.
    """
    groups = [np.asarray(values, float) for values in scores.values()]
    number = sum(group.size for group in groups)
    if number < 2:
        return summarize_values(np.concatenate(groups) if groups else [])
    resampled = [stats.trim_mean(np.concatenate(drawn), 0.25) for drawn in _resamples(groups)]
    mean = stats.trim_mean(np.concatenate(groups), 0.25)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Summary(number, float(mean), float(np.std(resampled)), float(low), float(high))


def probability_of_improvement(a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike]) -> Summary:
    """How probably a run of `a` scores more than one of `b` on a task drawn at random; equal scores count half.

    Mann and Whitney's U / (r s), mean over the tasks that both have.

    Args:
        a, b: {task: (r,) a score of each run}.

    Returns:
        As of `interquartile_mean`.
    """
    pairs = [(np.asarray(a[task], float), np.asarray(b[task], float)) for task in a if task in b]
    if not pairs:
        return Summary(0, None, None, None, None)

    def probability(groups: Iterable[np.ndarray]) -> float:
        values = list(groups)
        wins = [np.sign(x[:, None] - y).mean() for x, y in zip(values[::2], values[1::2], strict=True)]
        return 0.5 + 0.5 * float(np.mean(wins))

    groups = [values for pair in pairs for values in pair]
    resampled = [probability(drawn) for drawn in _resamples(groups)]
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Summary(len(pairs), probability(groups), float(np.std(resampled)), float(low), float(high))


def _resamples(groups: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """As many bootstrap samples of each group as there are `STRATIFIED`, the same at every call."""
    draw = np.random.default_rng(_SEED)
    for _ in range(STRATIFIED):
        yield [draw.choice(group, group.size) for group in groups]


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
