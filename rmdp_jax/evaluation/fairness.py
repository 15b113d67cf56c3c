"""How returns are spread over people: what a mean hides."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.limits import check_weights

WORST = 0.1  # the share of people whose mean return is reported apart
SERVED = 0.1  # of the best return of a run, which somebody has to get more than to count as served


class Fairness(NamedTuple):
    """Of some agents' returns, in the units that they are given in; an agent of weight 2 counts as two."""

    agents: int
    mean: float
    worst_tenth: float  # mean return of the tenth that gets least, by weight; an agent at its edge counts in part
    minimum: float
    gini: float | None  # 0: all alike, towards 1: one has all; None where a return is below 0, or all are 0
    unserved: float | None  # share, by weight, of those whom nobody serves; None where that is not known


def fairness(returns: ArrayLike, unserved: ArrayLike | None = None, weights: ArrayLike | None = None) -> Fairness:
    """How returns (m,) are spread.

    `worst_tenth` is the conditional value at risk at 10% of a discrete distribution (Rockafellar & Uryasev 2002). Gini's
    coefficient is sum_ij w_i w_j |r_i - r_j| / (2 W^2 mean), W = sum_i w_i (Gini 1912; Sen 1973): a share of a sum, so it says
    nothing of returns below 0. It is left out for those rather than shifted, as any shift changes it.

    Args:
        returns: (m,), m at least 1.
        unserved: (m,) bool, where it is known; see `served_above`.
        weights: (m,) above 0, 1 each when not given.

    Raises:
        ConfigError: weights break their rule.
    """
    values = np.asarray(returns, np.float64)
    weight = check_weights(weights, len(values))
    order = np.argsort(values, kind="stable")
    values, weight = values[order], weight[order]
    total, reached = weight.sum(), np.cumsum(weight)
    in_worst = np.clip(WORST * total - (reached - weight), 0.0, weight)
    lost = None if unserved is None else float(weight[np.asarray(unserved, bool)[order]].sum() / total)
    return Fairness(
        agents=len(values),
        mean=float(weight @ values / total),
        worst_tenth=float(in_worst @ values / in_worst.sum()),
        minimum=float(values[0]),
        gini=_gini(values, weight),
        unserved=lost,
    )


def mean_and_worst_tenth(returns: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float]:
    """Two figures of `fairness`."""
    spread = fairness(returns, weights=weights)
    return spread.mean, spread.worst_tenth


def _gini(values: np.ndarray, weight: np.ndarray) -> float | None:
    """Of sorted values: the double sum is 2 sum_i w_i r_i (weight before i - weight after i)."""
    if not values[0] >= 0.0 or not values[-1] > 0.0:
        return None
    total, reached = weight.sum(), np.cumsum(weight)
    return float((weight * values) @ (2.0 * reached - weight - total) / (total * (weight @ values)))


def fairness_by_group(
    returns: ArrayLike, groups: ArrayLike, unserved: ArrayLike | None = None, weights: ArrayLike | None = None
) -> dict[str, Fairness]:
    """`fairness` of the agents of each group, by the name of the group (m,), in the order of the names."""
    values, names = np.asarray(returns), np.asarray(groups)
    of = (unserved, None if weights is None else check_weights(weights, len(values)))
    found = {}
    for name in np.unique(names):
        own = names == name
        lost, weight = (None if x is None else np.asarray(x)[own] for x in of)
        found[str(name)] = fairness(values[own], lost, weight)
    return found


def served_above(best: float) -> float | None:
    """The return that somebody has to get more than to count as served: a tenth of `best`, the best of any agent of the run.

    None where `best` is not above 0, as a tenth of it says nothing then.
    """
    return SERVED * best if best > 0.0 else None


def of_run(utility: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> tuple[Fairness, float | None]:
    """`fairness` of a run's own agents, from utility (k, n), labels and weights (n,); and `served_above` of the best."""
    table, chosen = np.asarray(utility, np.float64), np.asarray(labels)
    returns = table[chosen, np.arange(len(chosen))]
    threshold = served_above(float(returns.max()))
    return fairness(returns, None if threshold is None else returns <= threshold, weights), threshold


def plain(spread: Fairness) -> dict[str, Any]:
    """As JSON takes it, with six significant digits."""
    return {name: (float(f"{value:.6g}") if isinstance(value, float) else value) for name, value in spread._asdict().items()}
