"""How many agents a policy may serve: limits as people give them, as an E-step holds them, and the best assignment within.

    max sum_i w_i u[x_i, i]   such that   at_least_j <= sum over {i: x_i = j} of w_i <= at_most_j   for every policy j

With equal weights this is a transportation problem, whose matrix is totally unimodular (Hoffman & Kruskal 1956): every vertex
of the linear program is an assignment, so HiGHS's vertex is the answer. With different weights it is a generalised assignment
problem, which is NP-hard: HiGHS's branch and bound proves the optimum, or gives up after `PATIENCE` seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.errors import ConfigError, shown

if TYPE_CHECKING:  # scipy is imported where it is needed, as it takes long
    from scipy.sparse import csr_array

SLACK = 1e-9  # relative, of sums of weights
PATIENCE = 60.0  # seconds, for the proof with different weights
PARTS = 2**30  # of all weight, in which an E-step counts
LEAST_WEIGHT = 1e-5  # of their mean; HiGHS holds sums to 1e-6
MOST_WEIGHTED = 1000  # agents with different weights, of whom an E-step looks at all pairs

PerPolicy = float | Sequence[float] | np.ndarray


class Limits(NamedTuple):
    """How many agents a policy serves, or how much weight where they have weights; one number for all, or k."""

    at_most: PerPolicy | None = None
    at_least: PerPolicy | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Loads:
    """Limits of each policy in whole numbers, which some assignment holds; made by `loads_of`."""

    at_least: tuple[int, ...]  # k
    at_most: tuple[int, ...]  # k
    weights: tuple[int, ...] | None = None  # n, of agents with different weights, in `PARTS` of all; an agent counts 1 else
    start: tuple[int, ...] | None = None  # n, where there are weights: labels that hold the limits


class Best(NamedTuple):
    """An assignment within limits."""

    labels: np.ndarray  # (n,) int32
    proved: bool  # that none is better


def loads_of(limits: Limits, k: int, n: int, frozen: int = 0, weights: ArrayLike | None = None) -> Loads:
    """Limits of k policies for n agents, with an agent at least for each policy but the first `frozen`, as all others learn.

    Limits count agents, or the `weights` (n,) where they have some. These are held up to rounding, of each agent's weight to
    `PARTS` of all weight.

    Raises:
        ConfigError: a limit breaks its rule, or no assignment holds them.
    """
    weight = check_weights(weights, n)
    high, low = (np.asarray(bound) for bound in with_an_agent_each(limits, k, weight, frozen))
    if (weight == weight[0]).all():
        low, high = _whole(low, weight[0]), _whole(np.minimum(high, n * weight[0]), weight[0], up=False)
        check_room(low, high, float(n), "agents")
        return Loads(*(tuple(int(limit) for limit in bound) for bound in (low, high)))
    if n > MOST_WEIGHTED:
        raise ConfigError(
            f"n = {n}: must be at most {MOST_WEIGHTED:,} where agents of different weights have limits in training; train "
            "without limits and hold them by rmdp-jax assign, or leave the weights out"
        )
    if weight.min() < LEAST_WEIGHT * weight.mean():
        raise ConfigError(
            f"weights: the least, {weight.min():g}, must be at least {LEAST_WEIGHT:g} of their mean, {weight.mean():g}, where "
            "policies have limits in training, as sums would not show it; leave such agents out, or take limits in assign"
        )
    check_room(low, high, float(weight.sum()), "of weight")
    start = _some_labels(*(tuple(values.tolist()) for values in (weight, low, high)))
    unit, slack = weight.sum() / PARTS, n / 2
    parts = np.round(weight / unit)
    bounds = np.maximum(np.ceil(low / unit - slack), low > 0), np.floor(np.minimum(high, weight.sum()) / unit + slack)
    least, most, own = (tuple(int(x) for x in values) for values in (*bounds, parts))
    return Loads(least, most, own, start)


def with_an_agent_each(limits: Limits, k: int, weight: np.ndarray, frozen: int = 0) -> Limits:
    """Limits of each policy that leave none without agents of these weights (n,) but the first `frozen`."""
    low, high = bounds_of(limits, k)
    least = weight.min()
    learns = np.arange(len(low)) >= frozen
    for j in np.flatnonzero((high < least * (1 - SLACK)) & learns):
        rule = "must be at least 1" if least == 1.0 else f"must be at least {least:g}, the least weight of an agent"
        raise ConfigError(f"at_most = {high[j]:g} for policy {j}: {rule}, as a policy for nobody learns nothing")
    return Limits(high, np.maximum(low, np.where(learns, least, 0.0)))


def _whole(limit: np.ndarray, weight: float, *, up: bool = True) -> np.ndarray:
    """A limit on agents of equal weight as a number of agents."""
    return np.ceil(limit / weight - SLACK) if up else np.floor(limit / weight + SLACK)


@lru_cache(maxsize=32)
def _some_labels(weight: tuple[float, ...], low: tuple[float, ...], high: tuple[float, ...]) -> tuple[int, ...]:
    labels = assign_within(np.zeros((len(low), len(weight))), Limits(high, low), weight)
    return tuple(int(label) for label in labels)


def bounds_of(limits: Limits | Loads, k: int) -> tuple[np.ndarray, np.ndarray]:
    """At least and at most of each policy, (k,) float64; 0 and infinity where nothing is said. ConfigError of what is none."""
    return _per_policy("at_least", limits.at_least, k, 0.0), _per_policy("at_most", limits.at_most, k, np.inf)


def _per_policy(name: str, limit: PerPolicy | None, k: int, none: float) -> np.ndarray:
    if limit is None:
        return np.full(k, none)
    try:
        values = np.asarray(limit, np.float64) if _are_numbers(limit) else np.full(1, np.nan)
    except (TypeError, ValueError):
        values = np.full(1, np.nan)
    if values.shape not in ((), (1,), (k,)) or not (values >= 0).all():
        raise ConfigError(f"{name} = {shown(limit)}: must be a number from 0 up, or k = {k} of them")
    return np.broadcast_to(values, k).astype(np.float64)


def _are_numbers(values: ArrayLike | None) -> bool:
    """Whether numpy sees numbers, and no words or flags, which it would make numbers of."""
    return np.asarray(values).dtype.kind not in "SUb"


def check_order(low: np.ndarray, high: np.ndarray, what: str = "agents") -> None:
    """Raise `ConfigError` where a policy is to serve more at least than at most."""
    for j in np.flatnonzero(low > high):
        raise ConfigError(
            f"at_least = {low[j]:g}, at_most = {high[j]:g} for policy {j}: at_least must not be more {what} than at_most"
        )


def check_room(low: np.ndarray, high: np.ndarray, total: float, what: str) -> None:
    """Raise `ConfigError` where sums show that nobody can hold the limits; `what` they count: agents, or "of weight"."""
    k = len(low)
    check_order(low, high, what)

    def each(to_whole: Callable[[float], float]) -> str:
        """A k-th of the total in whole agents, or in six digits of weight, so that k of them hold the rule."""
        if what == "agents":
            return f"{to_whole(total / k):g}"
        digit = 10.0 ** (np.floor(np.log10(total / k)) - 5)
        return f"{to_whole(np.round(total / k / digit, 4)) * digit:g}"

    if high.sum() < total * (1 - SLACK):
        raise ConfigError(
            f"at_most: the {k} policies have room for {high.sum():g} {what} together, and there are {total:g}; "
            f"give at least {each(np.ceil)} each"
        )
    if low.sum() > total * (1 + SLACK):
        raise ConfigError(
            f"at_least: the {k} policies ask for {low.sum():g} {what} together, and there are {total:g}; "
            f"give at most {each(np.floor)} each"
        )


def assign_within(utility: ArrayLike, limits: Limits | Loads, weights: ArrayLike | None = None) -> np.ndarray:
    """The policy of every agent (n,) int32 that makes the weighted sum of utilities largest within the limits; exact.

    Args:
        utility: (k, n) what every policy brings every agent, finite.
        limits: of the number of agents of a policy, or of the sum of their weights.
        weights: (n,) above 0; an agent of weight 2 counts as two, in the sum and in the limits. 1 each when not given.

    Raises:
        ConfigError: an argument breaks its rule, no assignment holds the limits, or the best was not proved in `PATIENCE` s.
    """
    best = search_within(utility, limits, weights)
    if best is None or not best.proved:
        raise ConfigError(
            f"limits: the best assignment of {np.shape(utility)[1]} agents with weights was not proved in {PATIENCE:g} s; "
            "loosen the limits, or leave the weights out (counts of agents are solved in seconds)"
        )
    return best.labels


def search_within(utility: ArrayLike, limits: Limits | Loads, weights: ArrayLike | None = None) -> Best | None:
    """As `assign_within`, but what is found in `PATIENCE` s where that is not proved to be the best; None if nothing is."""
    table = np.asarray(utility, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ConfigError(f"utility of shape {table.shape}: must be (k, n) finite numbers")
    k, n = table.shape
    weight = check_weights(weights, n)
    low, high = bounds_of(limits, k)
    equal = bool((weight == weight[0]).all())
    if equal:  # whole numbers of agents
        low, high = _whole(low, weight[0]), _whole(high, weight[0], up=False)
        table, weight = table * weight[0], np.ones(n)
    check_room(low, high, float(weight.sum()), "agents" if equal else "of weight")
    labels = table.argmax(0)
    if _within(labels, weight, low, high):
        return Best(labels.astype(np.int32), True)
    return (_by_vertex if equal else _by_branching)(table, weight, low, high)


def describe_limits(result: Mapping[str, Any]) -> str:
    """The limits that result.json or budget.json names, in words; nothing where there are none."""
    limits = {name.replace("_", " "): result.get(name) for name in ("at_least", "at_most")}
    parts = [f"{name} {' '.join(f'{of:g}' for of in np.ravel(limit))}" for name, limit in limits.items() if limit is not None]
    return ", ".join(parts) + (" of weight" if result.get("weighted") else " agents") + " a policy" if parts else ""


def check_weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    """Weights (n,) float64, ones where none are given; ConfigError unless they are n finite numbers above 0."""
    weight = np.ones(n) if weights is None else np.asarray(weights)
    sound = _are_numbers(weight)
    if weight.dtype == np.float32:  # as they were written: ten of 0.1 are 1
        weight = weight.astype(str)
    try:
        weight = weight.astype(np.float64) if sound else np.zeros(0)
    except (TypeError, ValueError):
        weight = np.zeros(0)
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


def _by_vertex(table: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> Best:
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
                return Best(labels.astype(np.int32), True)
    raise ConfigError(f"limits: HiGHS found no assignment of {n} agents to {k} policies ({found.message})")


def _by_branching(table: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> Best | None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    k, n = table.shape
    unit = weight.mean()  # as HiGHS holds constraints to so many digits behind the point
    once, loads = _rows(k, weight / unit)
    rules = [LinearConstraint(once, 1, 1), LinearConstraint(loads, low / unit, np.minimum(high, weight.sum()) / unit)]
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
    return None if found.x is None else Best(found.x.reshape(k, n).argmax(0).astype(np.int32), found.status == 0)
