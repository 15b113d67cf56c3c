"""Who is served by whom where policies have limits: the exact best assignment for a table of utilities.

    max sum_i w_i u[x_i, i]   such that   at_least_j <= sum over {i: x_i = j} of w_i <= at_most_j   for every policy j

With equal weights this is a transportation problem, whose matrix is totally unimodular (Hoffman & Kruskal 1956): every vertex
of the linear program is an assignment, so HiGHS's vertex is the answer. With different weights it is a generalised assignment
problem, which is NP-hard: HiGHS's branch and bound proves the optimum, or gives up after `PATIENCE` seconds.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.errors import ConfigError, shown
from rmdp_jax.limits import SLACK, Limits, Loads, bounds_of, check_room

if TYPE_CHECKING:  # scipy is imported where it is needed, as it takes long
    from scipy.sparse import csr_array

PATIENCE = 60.0  # seconds, for the proof with different weights


def assign_within(utility: ArrayLike, limits: Limits | Loads, weights: ArrayLike | None = None) -> np.ndarray:
    """The policy of every agent (n,) int32 that makes the weighted sum of utilities largest within the limits; exact.

    Args:
        utility: (k, n) what every policy brings every agent, finite.
        limits: of the number of agents of a policy, or of the sum of their weights.
        weights: (n,) above 0; an agent of weight 2 counts as two, in the sum and in the limits. 1 each when not given.

    Raises:
        ConfigError: an argument breaks its rule, no assignment holds the limits, or the best was not proved in `PATIENCE` s.
    """
    table = np.asarray(utility, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ConfigError(f"utility of shape {table.shape}: must be (k, n) finite numbers")
    k, n = table.shape
    weight = check_weights(weights, n)
    low, high = bounds_of(limits, k)
    equal = bool((weight == weight[0]).all())
    if equal:  # whole numbers of agents
        low, high = np.ceil(low / weight[0] - SLACK), np.floor(high / weight[0] + SLACK)
        table, weight = table * weight[0], np.ones(n)
    check_room(low, high, float(weight.sum()), "agents" if equal else "of weight")
    labels = table.argmax(0)
    if _within(labels, weight, low, high):
        return labels.astype(np.int32)
    return (_by_vertex if equal else _by_branching)(table, weight, low, high).astype(np.int32)


def check_weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    """Weights (n,) float64, ones where none are given; ConfigError unless they are n finite numbers above 0."""
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != (n,) or not (np.isfinite(weight) & (weight > 0)).all():
        raise ConfigError(f"weights = {shown(weights)}: must be ({n},) finite numbers above 0, one an agent")
    return weight


def _within(labels: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    load, slack = np.bincount(labels, weight, minlength=len(low)), SLACK * weight.sum()
    return bool(((load >= low - slack) & (load <= high + slack)).all())


def _rows(k: int, weight: np.ndarray) -> "tuple[csr_array, csr_array]":
    """Rows of x (k n,) that sum over the policies of each agent, and over the weights of the agents of each policy."""
    from scipy.sparse import csr_array, eye_array, kron

    n = len(weight)
    return csr_array(kron(np.ones((1, k)), eye_array(n))), csr_array(kron(eye_array(k), weight[None]))


def _by_vertex(table: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    (k, n), capped = table.shape, np.minimum(high, len(weight))
    once, loads = _rows(k, weight)
    for method in ("highs-ipm", "highs-ds"):  # the first, with its crossover to a vertex, is several times faster
        found = linprog(
            -table.ravel() / max(np.abs(table).max(), 1e-300),
            A_ub=vstack([loads, -loads]),
            b_ub=np.concatenate([capped, -low]),
            A_eq=once,
            b_eq=np.ones(n),
            method=method,
        )
        if found.status == 0 and np.abs(found.x - found.x.round()).max() < 1e-6:
            labels = found.x.reshape(k, n).argmax(0)
            if _within(labels, weight, low, high):
                return labels
    raise ConfigError(f"limits: HiGHS found no assignment of {n} agents to {k} policies ({found.message})")


def _by_branching(table: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    from scipy.optimize import Bounds, LinearConstraint, milp

    k, n = table.shape
    once, loads = _rows(k, weight)
    rules = [LinearConstraint(once, 1, 1), LinearConstraint(loads, low, np.minimum(high, weight.sum()))]
    value = table * weight
    found = milp(
        -value.ravel() / max(np.abs(value).max(), 1e-300),
        constraints=rules,
        integrality=np.ones(k * n),
        bounds=Bounds(0, 1),
        options={"time_limit": PATIENCE, "mip_rel_gap": 0.0},
    )
    if found.status == 2:
        raise ConfigError(
            f"limits: no assignment of {n} agents, of weights {weight.min():g} to {weight.max():g}, holds at_least = "
            f"{shown(low.tolist())} and at_most = {shown(high.tolist())}, as nobody is divided; loosen them"
        )
    if found.status != 0:
        raise ConfigError(
            f"limits: the best assignment of {n} agents with weights was not proved in {PATIENCE:g} s; loosen the limits, or "
            "leave the weights out (counts of agents are solved in seconds)"
        )
    return found.x.reshape(k, n).argmax(0)
