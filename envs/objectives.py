"""Vector rewards as agents: each weighs the same objectives in a way of its own, as in multi-objective RL.

    people = weighted_objectives(env, weights)  # (n, m) weights of an env whose outcome are m objectives

A set of policies that is best for every weighting is a convex coverage set (Roijers et al., "A survey of multi-objective
sequential decision-making", JAIR 48 (2013)); k policies are the best k of it that can be had.
"""

import math
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmdp_jax.env import Env, Population
from rmdp_jax.errors import ConfigError, in_line
from rmdp_jax.evaluation.episodes import outcome_like, outcome_names
from rmdp_jax.types import Array, PyTree

MOST_SETS = 10**5  # of k policies that are tried for the exact bound


def weighted_objectives(env: Env, weights: ArrayLike, *, front: ArrayLike | None = None) -> Population:
    """n people who are paid weights[i] @ objectives, m numbers that the outcome of a step holds.

    An agent is a dict: what each objective, by its name in the outcome (``treasure``; ``outcome_0`` of a nameless vector), is
    worth to them.

    Args:
        env: its outcome is the vector of objectives (m,), or any structure of numbers: its leaves, raveled, in their order.
        weights: (n, m) of each agent.
        front: (p, m) undiscounted returns of policies that are best for some weighting, all of those that can be (a convex
            coverage set), where they are known. Then `best_return` and `upper_bound` are: exact up to `MOST_SETS` sets of k of
            them, above that the bound of who each have a policy of their own.

    Raises:
        ConfigError: weights or front are no finite numbers of these shapes.
    """
    names = [name for leaf in outcome_names(outcome_like(env)) for name in leaf]
    given = _matrix("weights", weights, names)
    known = None if front is None else _matrix("front", front, names)

    def reward(agent: dict[str, Array], outcome: PyTree) -> Array:
        return jnp.stack([agent[name] for name in names]) @ objectives(outcome)

    def best_return(agents: PyTree) -> ArrayLike | None:
        return None if known is None else (np.stack([agents[name] for name in names], 1) @ known.T).max(1)

    def upper_bound(k: int) -> float | None:
        return None if known is None else best_of(given.astype(np.float64) @ known.T, k)

    agents = {name: jnp.asarray(column) for name, column in zip(names, given.T, strict=True)}
    return Population(agents, reward, upper_bound=upper_bound, best_return=best_return)


def objectives(outcome: PyTree) -> Array:
    """The outcome of a step as a vector (m,) float32."""
    return jnp.concatenate([jnp.asarray(leaf).astype(jnp.float32).ravel() for leaf in jax.tree.leaves(outcome)])


def best_of(returns: np.ndarray, k: int) -> float:
    """The mean over n agents of the best of k columns of `returns` (n, p), chosen best; of all p where sets are too many."""
    p = returns.shape[1]
    if k >= p or math.comb(p, k) > MOST_SETS:
        return float(returns.max(1).mean())
    return float(max(returns[:, chosen].max(1).mean() for chosen in combinations(range(p), k)))


def _matrix(name: str, values: ArrayLike, names: list[str]) -> np.ndarray:
    """`values` as (rows, m) float32 of m objectives, or ConfigError."""
    m = len(names)
    rule = f"must be finite numbers of shape (rows, {m}), a column for each objective of the outcome"
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} = {in_line(values)}: {rule}") from None
    if found.ndim != 2 or found.shape[0] == 0 or found.shape[1] != m:
        raise ConfigError(f"{name} of shape {found.shape}: {rule}")
    if not np.isfinite(found).all():
        raise ConfigError(f"{name}: some are not finite; {rule}")
    return found
