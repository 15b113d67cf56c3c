"""On whose terms: welfare as a p-mean of what agents get, and what a return more is worth on those terms.

    W_p(u) = (sum_i a_i u_i^p / sum_i a_i)^(1/p)          u_i: return of agent i in 0..1, a_i > 0: its weight

p = 1 is the mean (utilitarian), p = 0 the limit, the geometric mean (Nash), p = -inf the minimum (egalitarian): the family of
welfare functions that are symmetric, separable and free of units (Moulin, Fair Division and Collective Welfare, 2003, ch. 3).
For p <= 1, W_p rises with the sum of concave worths,

    worth(u) = (u^p - 1) / p, log u at p = 0          marginal(u) = u^(p - 1)

which is what the E-step, facility location and the M-step work with. There u is lifted off 0 by `FLOOR`, so that no agent's
worth is infinite, and p is at least `LOWEST`, which stands for all below it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

FLOOR = 0.01  # of returns in 0..1
LOWEST = -3.0  # of p in training: below it float32 loses the worths of good returns beside that of 0


class Welfare(NamedTuple):
    """Welfare of n agents on the terms of a run, for returns in its own units."""

    plain: bool  # the mean over agents: worth is the return, and all count alike
    mean: Callable[[Array], Array]  # returns (n,) -> () in the same units
    # returns (..., n or m), the agents (m,) that they are of or None for all -> what they are worth, in the same units
    worth: Callable[[Array, np.ndarray | None], Array]
    counts: Callable[[Array], Array]  # returns (n,) -> (n,) what a return more of each is worth, 1 of the one at most
    most: Callable[[Array], Array]  # mean worth () of n agents -> the most that their welfare can be, exact where p = 1


def make_welfare(p: float, scale: float, weights: Array | None = None) -> Welfare:
    """The p-mean of returns times `scale`, which are to be in 0..1, of agents with `weights` (n,), alike where None."""

    def weighed(values: Array, agents: np.ndarray | None) -> Array:
        if weights is None:
            return values
        own = (weights if agents is None else weights[agents]) / weights.mean()
        return values * jnp.broadcast_to(own, values.shape)

    plain = p == 1.0 and weights is None

    def counts(returns: Array) -> Array:
        slopes = weighed(marginal(scale * returns, p), None)
        return slopes / slopes.max()

    return Welfare(
        plain=plain,
        mean=jnp.mean if plain else lambda returns: p_mean(scale * returns, p, weights) / scale,
        worth=lambda returns, agents: weighed(worth(scale * returns, p), agents) / scale,
        counts=counts,
        most=lambda mean_worth: from_worth(scale * mean_worth, p) / scale,
    )


def p_mean(returns: Array, p: float, weights: Array | None = None) -> Array:
    """W_p () of returns (n,) in 0..1, of which those below 0 count as 0 for p < 1; 0 where p <= 0 and one of them is 0."""
    weights = jnp.ones_like(returns) if weights is None else weights
    shares = weights / weights.sum()
    if p == 1.0:
        return (shares * returns).sum()
    returns = jnp.maximum(returns, 0.0)
    if p == -jnp.inf:
        return returns.min()
    unit = returns.min() if p < 0.0 else returns.max()  # taken out of the sum, where powers could pass float32
    ratio = returns / jnp.where(unit > 0.0, unit, 1.0)
    mean = jnp.exp((shares * jnp.log(ratio)).sum()) if p == 0.0 else (shares * ratio**p).sum() ** (1.0 / p)
    return jnp.where((unit if p > 0.0 else returns.min()) > 0.0, unit * mean, 0.0)


def worth(returns: Array, p: float) -> Array:
    """What returns of any shape, in 0..1, are worth: rises with them, concave, with slope 1 at a return of 1."""
    if p == 1.0:
        return returns
    p, lifted = max(p, LOWEST), _lift(returns)
    below = jnp.minimum(returns, 0.0) * (FLOOR / (1.0 + FLOOR)) ** (p - 1.0)  # which goes on with the slope at 0
    return (1.0 + FLOOR) * (jnp.log(lifted) if p == 0.0 else (lifted**p - 1.0) / p) + below


def from_worth(value: Array, p: float) -> Array:
    """The return in 0..1 that has this `worth`; of a mean worth at least the p-mean, which `FLOOR` and `LOWEST` only raise."""
    if p == 1.0:
        return value
    value = jnp.maximum(value, worth(jnp.zeros_like(value), p))  # as returns below 0 count as 0 in a p-mean
    p, value = max(p, LOWEST), value / (1.0 + FLOOR)
    return (1.0 + FLOOR) * (jnp.exp(value) if p == 0.0 else (1.0 + p * value) ** (1.0 / p)) - FLOOR


def marginal(returns: Array, p: float) -> Array:
    """The slope of `worth`, 1 at a return of 1; agents who get little count more where p < 1."""
    return jnp.ones_like(returns) if p == 1.0 else _lift(returns) ** (max(p, LOWEST) - 1.0)


def describe_terms(result: Mapping[str, Any]) -> str:
    """On whose terms the welfare in result.json is, in words; nothing where it is the mean over agents."""
    if "welfare_p" not in result and not result.get("weighted"):
        return ""
    return f"p-mean of returns, p = {result.get('welfare_p', 1)}" + (", by weight" * result.get("weighted", False))


def _lift(returns: Array) -> Array:
    """Returns in FLOOR / (1 + FLOOR)..1."""
    return (jnp.maximum(returns, 0.0) + FLOOR) / (1.0 + FLOOR)
