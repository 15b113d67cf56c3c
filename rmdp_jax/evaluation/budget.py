"""How many policies: the best k of M members for every k, how far another choice could get, and which k a rule recommends.

What k members S bring n agents, f(S) = mean_i max_{c in S} worth[c, i], is monotone and submodular. So greedy choice is within
1 - 1/e of the best choice of k members, above what the worst member brings each agent (Nemhauser, Wolsey & Fisher, 1978). What
is reported is tighter, and of the choice at hand: for any levels l (n,) no choice of k members is above

    mean_i l_i + sum of the k largest of mean_i max(worth[c, i] - l_i, 0)        over members c

(Cornuejols, Fisher & Nemhauser, 1977). With l_i = max_{c in S} worth[c, i] that is f(S) and the k largest gains of one member
more; Polyak's subgradient steps from there lower it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.assigners.facility_location import greedy, swap_until_best
from rmdp_jax.errors import INT32, ConfigError, check, number_between, real_number, several, shown, whole_number
from rmdp_jax.learning.segments import scored_agents
from rmdp_jax.limits import Limits, assign_within, bounds_of, check_room, check_weights, loads_of
from rmdp_jax.types import Array
from rmdp_jax.welfare import Welfare

SHARE = 0.95  # of the individual end, of the rule where none is given
MOST_STEPS = 200  # towards the least limit
MOST_NUMBERS = 10**8  # of worth that these look at, but once at least

_choose_greedily, _improve = jax.jit(greedy, static_argnums=2), jax.jit(swap_until_best)  # a program for every k


class Choice(NamedTuple):
    """The best k members that were found."""

    members: np.ndarray  # (k,) int32; one is there twice where another would add nothing
    labels: np.ndarray  # (n,) int32, which member serves each agent
    welfare: float  # in the episodes that they were chosen by, so that chance flatters it
    limit: float  # what no choice of k members is above in these, nor would be without limits on agents


class Rule(NamedTuple):
    """By what a number of policies is recommended: one of the two, the other None."""

    price: float | None  # welfare, of 100, that one more policy has to add
    share: float | None  # of what the best member for each agent brings


class Recommended(NamedTuple):
    """A number of policies and why it is."""

    k: int | None  # None where no k that was looked at holds the rule
    why: str


def check_ks(ks: Any, low: int = 1) -> tuple[int, ...]:
    """Numbers of policies as ints, `low` of them at least, or `ConfigError`."""
    rule = "whole numbers of at least 1, each above the one before, such as 1 2 5"
    numbers = several(ks)
    check("ks", ks, len(numbers) >= low, rule if low == 1 else f"{low} or more {rule}")
    try:
        numbers = tuple(whole_number("ks", k, 1, INT32) for k in numbers)
    except ConfigError:
        numbers = ()
    check("ks", ks, bool(numbers) and list(numbers) == sorted(set(numbers)), rule)
    return numbers


def check_rule(price: Any = None, share: Any = None) -> Rule:
    """The rule of a `price` or of a `share`, `SHARE` where neither is given.

    Raises:
        ConfigError: both are given, or one breaks its own rule.
    """
    if price is not None and share is not None:
        raise ConfigError(f"price = {price}, share = {share}: are two rules, must be one; leave the other out")
    if price is None:
        return Rule(None, number_between("share", SHARE if share is None else share, 1e-9, 1.0, "above 0, at most 1"))
    rule = "a finite number from 0 up: the welfare, of 100, that one more policy has to add"
    return Rule(real_number("price", price, lambda x: 0.0 <= x < math.inf, rule), None)


def recommend(rule: Rule, ks: Sequence[int], welfare: ArrayLike, individual: float) -> Recommended:
    """By a price, the k with the largest welfare - price k; by a share, the least k with that share of `individual`.

    Where gains fall with k, the first is the last k that adds the price or more for each policy.

    Args:
        rule: of `check_rule`.
        ks: (K,), rising.
        welfare: (K,) in reference units.
        individual: what the best member for each agent brings, in the same units.
    """
    values = np.asarray(welfare, float)
    if rule.price is not None:
        k = int(ks[int((values - rule.price * np.asarray(ks, float)).argmax())])
        return Recommended(k, f"welfare less {rule.price:g} a policy is highest there")
    assert rule.share is not None
    if individual <= 0.0:
        return Recommended(None, f"the individual end is {individual:.2f}, and a share takes one above 0; give a price")
    reached = np.flatnonzero(values >= rule.share * individual * (1.0 - 1e-9))
    target = f"{rule.share:.4g} of the individual end, {rule.share * individual:.2f}"
    if not len(reached):
        return Recommended(None, f"no k up to {ks[-1]} reaches {target}; give larger ks, or a smaller share")
    return Recommended(int(ks[reached[0]]), f"the least k that reaches {target}")


def check_ks_within(ks: Sequence[int], limits: Limits | None, n: int, weights: ArrayLike | None = None) -> tuple[int, ...]:
    """Those of the `ks` whose policies can serve n agents within limits, of one number for all policies.

    Raises:
        ConfigError: a limit is of k numbers, or breaks its rule; or none of the `ks` is left.
    """
    if limits is None:
        return tuple(ks)
    for name, limit in limits._asdict().items():
        rule = "one number for all policies, as ks are compared; give one"
        check(name, shown(limit), limit is None or np.size(limit) == 1, rule)
    weight = check_weights(weights, n)
    left, refused = [], ""
    for k in ks:
        try:
            if (weight == weight[0]).all():
                loads_of(limits, k, n, weights=weight)
            else:
                check_room(*bounds_of(limits, k), float(weight.sum()), "of weight")
            left.append(k)
        except ConfigError as error:
            refused = str(error)
    if not left:
        raise ConfigError(f"ks = {shown(tuple(ks))}: none has room for all within the limits; {refused}")
    return tuple(left)


def check_all_ks_within(ks: Sequence[int], limits: Limits | None, n: int, weights: ArrayLike | None = None) -> None:
    """Raise `ConfigError` unless the policies of all `ks` can serve n agents within limits; see `check_ks_within`."""
    left = check_ks_within(ks, limits, n, weights)
    without = tuple(k for k in ks if k not in left)
    check("ks", shown(without), not without, f"numbers of policies with room for all within the limits, as {shown(left)} are")


def choose_members(
    utility: ArrayLike,
    ks: Sequence[int],
    welfare: Welfare,
    limits: Limits | None = None,
    weights: ArrayLike | None = None,
) -> list[Choice]:
    """For every k the members that together serve the agents best, each agent by the one best for it, by two searches.

    Of more than `learning.segments.LARGEST_UNSAMPLED` agents a sample decides; labels, welfare and limit are of all. Where
    there are `limits`, members are chosen without them, in place of repeated ones those that are best on the mean, and then
    serve the agents in the best way within the limits.

    Args:
        utility: (M, n) what every member brings every agent.
        ks: (K,), rising, M at most.
        welfare: on whose terms, in the units of `utility`.
        limits: how many agents, or how much of their `weights` (n,), each of the k serves.
    """
    table = jnp.asarray(utility, jnp.float32)
    worth, sample = welfare.worth(table, None), scored_agents(table.shape[1])
    searched = worth if sample is None else worth[:, sample]
    sets = _choose_sets(searched, ks)
    if limits is not None:
        sets = [_all_different(np.asarray(worth), chosen) for chosen in sets]
    bounds = [_limit(np.asarray(worth), chosen) for chosen in sets]
    returns = np.asarray(table)
    labels = [chosen[_serve(returns, np.asarray(worth), chosen, limits, weights)] for chosen in sets]
    agents = np.arange(returns.shape[1])
    reached = [float(welfare.mean(table[own, agents])) for own in labels]
    most = [float(welfare.most(jnp.float32(limit))) for limit in bounds]
    return [Choice(*of) for of in zip(sets, labels, reached, map(max, most, reached), strict=True)]


def _serve(
    returns: np.ndarray, worth: np.ndarray, chosen: np.ndarray, limits: Limits | None, weights: ArrayLike | None
) -> np.ndarray:
    """Which of the `chosen` members serves each agent, (n,)."""
    if limits is None:
        return returns[chosen].argmax(0)
    weight = check_weights(weights, returns.shape[1])
    return assign_within(worth[chosen] * weight.mean() / weight, limits, weight)


def _all_different(worth: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The `chosen` rows of worth (M, n), each once, and as many as they were by those of the rest with the best means."""
    own = list(dict.fromkeys(chosen.tolist()))
    rest = [row for row in np.argsort(-worth.mean(1), kind="stable").tolist() if row not in own]
    return np.array([*own, *rest][: len(chosen)], np.int32)


def _choose_sets(worth: Array, ks: Sequence[int]) -> list[np.ndarray]:
    """For every k the better of two searches by swaps: from a greedy choice, and from the next larger choice, thinned out."""
    rows, valid = np.asarray(worth), jnp.ones(len(worth), bool)
    order = np.asarray(_choose_greedily(worth, valid, ks[-1], ks[-1]))
    sets: list[np.ndarray] = []
    for k in reversed(ks):
        starts = [order[:k], *(_drop(rows, larger, k) for larger in sets[:1])]
        ends = [np.asarray(_improve(worth, valid, start, 2 * k)) for start in starts]
        sets.insert(0, max(ends, key=lambda chosen: rows[chosen].max(0).mean(dtype=float)))
    return sets


def _drop(worth: np.ndarray, chosen: np.ndarray, k: int) -> np.ndarray:
    """k of the `chosen` rows of worth (M, n): again and again the one goes that is missed least."""
    while len(chosen) > k:
        without = [worth[np.delete(chosen, j)].max(0).mean(dtype=float) for j in range(len(chosen))]
        chosen = np.delete(chosen, int(np.argmax(without)))
    return chosen


def _limit(worth: np.ndarray, chosen: np.ndarray) -> float:
    """A mean worth that no choice of as many rows of worth (M, n) as the `chosen` passes."""
    k, n = len(chosen), worth.shape[1]
    levels = worth[chosen].max(0).astype(float)
    reached, least = levels.mean(), worth.max(0).mean(dtype=float)  # of all members
    for _ in range(max(1, min(MOST_STEPS, MOST_NUMBERS // worth.size))):
        gains = np.array([np.maximum(row - levels, 0.0).mean() for row in worth])
        best = np.argsort(gains)[-k:]
        value = levels.mean() + gains[best].sum()
        least = min(least, value)
        slope = 1 - (worth[best] > levels).sum(0)
        if value <= reached or not slope.any():
            break
        levels = levels - n * (value - reached) / np.square(slope).sum() * slope
    return float(least)
