"""The best that k constant speeds can do for n target speeds: a one-dimensional p-median, solved exactly."""

from collections.abc import Callable

import numpy as np

LARGEST_EXACT = 16_384  # different targets; more are grouped, and the bound says so by being a little higher


def speed_upper_bound(targets: np.ndarray, half_width: float, k: int) -> float:
    """Best welfare of k constant speeds for n targets, in 0..100, which no gait reaches, as it ripples.

    max over v_1..v_k of (100/n) sum_i max_j f(v_j - t_i), f(d) = clip(1 - |d|/L, 0, 1), L = `half_width` > 0: a
    one-dimensional p-median. No policy that varies its speed does better, as a mean over speeds is at most the best of them.

    Exact for up to `LARGEST_EXACT` different targets. More are put into that many groups of neighbours, each at its mean m(i);
    as f changes by at most |d| / L, the exact optimum of the groups + (100/n) sum_i |t_i - m(i)| / L is still a bound, and too
    high by at most twice the last term (0.06 for 10^6 uniform targets of HalfCheetah). Seconds at most for any n and k = 50.
    """
    t, weight = np.unique(np.asarray(targets, np.float64), return_counts=True)
    if t.size <= LARGEST_EXACT:
        return _best_total(t, weight, half_width, k) * 100.0 / int(weight.sum())
    starts = np.linspace(0, t.size, LARGEST_EXACT, endpoint=False).astype(int)
    weights = np.add.reduceat(weight, starts)
    means = np.add.reduceat(t * weight, starts) / weights
    moved = weight @ np.abs(t - np.repeat(means, np.diff([*starts, t.size])))
    return (_best_total(means, weights, half_width, k) + float(moved) / half_width) * 100.0 / int(weight.sum())


def _best_total(t: np.ndarray, weight: np.ndarray, half_width: float, k: int) -> float:
    """max over k speeds of sum_i weight_i max_j f(v_j - t_i), of different sorted t (m,).

    It is enough to try speeds that equal a target. For the targets that one speed serves, the total of f as a function of
    the speed is piecewise linear, bends down at targets only and up at targets +-L, and is zero far out. At the leftmost of
    its maxima it rises before and does not rise after, hence bends down, hence that is a target (or the total is zero
    throughout). Of the chosen speeds each target takes the nearest, so what two neighbouring speeds earn from the
    targets between them depends on these two alone, and the best chain of k speeds is found from left to right.
    """
    m = t.size
    index = np.arange(m)
    counts, sums = (np.concatenate([[0.0], np.cumsum(x)]) for x in (weight, weight * t))
    first = np.searchsorted(t, t - half_width, "left")  # reach of each speed: targets first .. last-1
    last = np.searchsorted(t, t + half_width, "right")

    def earned_right(a: np.ndarray, end: np.ndarray) -> np.ndarray:  # by speed t[a] from targets a+1 .. end-1
        end = np.maximum(np.minimum(end, last[a]), a + 1)
        count = counts[end] - counts[a + 1]
        return count - (sums[end] - sums[a + 1] - count * t[a]) / half_width

    def earned_left(b: np.ndarray, start: np.ndarray) -> np.ndarray:  # by speed t[b] from targets start .. b, itself too
        start = np.minimum(np.maximum(start, first[b]), b + 1)
        count = counts[b + 1] - counts[start]
        return count - (count * t[b] - (sums[b + 1] - sums[start])) / half_width

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # by neighbours t[a], t[b], a < b, from targets a+1 .. b
        split = np.clip(np.searchsorted(t, (t[a] + t[b]) / 2.0, "right"), a + 1, b + 1)
        return earned_right(a, split) + earned_left(b, split)

    best = earned_left(index, np.zeros_like(index))  # [b]: of all targets up to b, by chains that end in b
    for _ in range(min(k, m) - 1):
        best = _best_before(best, between)
    return float((best + earned_right(index, np.full_like(index, m))).max())


def _best_before(best: np.ndarray, between: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """max over a < b of best[a] + between(a, b), of each b (m,), in O(m log m).

    The best a never moves left as b moves right. For a < a' < b < b' and each target, write x <= x' for what a and a' offer it
    and y >= y' for what b and b' do: max(x, y) + max(x', y') >= max(x', y) + max(x, y'), as max is submodular; targets between
    a and a', or b and b', only add to it. So b in the middle is solved first, and halves what is left to try on either side;
    all b of one depth are solved at once.
    """
    m = best.size
    found, chosen = np.full(m, -np.inf), np.zeros(m + 1, int)  # b = 0 has nothing before it
    step = 1 << max(m - 1, 1).bit_length()
    while step > 1:
        step //= 2
        b = np.arange(step, m, 2 * step)  # those between that were solved already are at multiples of 2 step
        low = chosen[b - step]
        high = np.where(b + step < m, np.minimum(chosen[np.minimum(b + step, m)], b - 1), b - 1)
        sizes = high - low + 1
        starts = np.cumsum(sizes) - sizes
        a = np.arange(sizes.sum()) - np.repeat(starts - low, sizes)
        values = best[a] + between(a, np.repeat(b, sizes))
        if b.size:
            found[b] = np.maximum.reduceat(values, starts)
            chosen[b] = np.minimum.reduceat(np.where(values == np.repeat(found[b], sizes), a, m), starts)
    return found
