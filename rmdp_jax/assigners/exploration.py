"""How `em` begins: all policies are one, which learns for every agent by how little it was paid so far.

    weight of agent i = 1 / (NEED + best_i / max_l best_l)          best_i: highest running utility of agent i so far

So it first learns what all agents need, and then goes on from who is served to who is not, wherever their rewards lead it;
with equal weights it would stay at the first local optimum of the mean reward. The archive keeps what it was on its way.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rmdp_jax.learning.segments import NO_RETURN
from rmdp_jax.types import Array

NEED = 0.3  # agents that were paid nothing weigh at most 1 + 1 / NEED times as much as the one that was paid best
RISE = 0.1  # relative rise of the mean of `best` that counts
PATIENCE = 0.5  # share of the longest exploration after which it ends without a rise


class Exploration(NamedTuple):
    """What one exploration has seen."""

    under_way: Array  # () bool
    best: Array  # (n,) float32, `NO_RETURN` before the first iteration
    covered: Array  # () float32, mean of `best` when it last rose
    rose_at: Array  # () int32 iteration of the start
    ended_at: Array  # () int32 iteration of the start, once it has ended


def begin_exploration(n: int, explores: bool = True) -> Exploration:
    """Nothing seen yet; over before it begins where nothing `explores`."""
    zero = jnp.int32(0)
    return Exploration(jnp.bool_(explores), jnp.full(n, NO_RETURN, jnp.float32), jnp.float32(NO_RETURN), zero, zero)


def weigh_by_need(best: Array) -> Array:
    """Weights (n,) float32 of agents in the reward of the one policy, from the highest utilities (n,) that they had."""
    best = jnp.where(best > NO_RETURN, best, 0.0)
    best = best - jnp.minimum(best.min(), 0.0)
    most = best.max()
    return 1.0 / (NEED + best / jnp.where(most > 0.0, most, 1.0))


def explore_on(before: Exploration, utility: Array, now: Array, longest: Array, *, may_stall: bool = True) -> Exploration:
    """One iteration later, with running utilities (k, n).

    It ends after `longest` iterations, or when the mean of `best` has not risen by `RISE` in the last `PATIENCE` of as many,
    if it `may_stall`.
    """
    best = jnp.maximum(before.best, utility.max(0))
    covered = best.mean()
    rises = covered > before.covered + RISE * jnp.abs(before.covered)
    rose_at = jnp.where(rises, now, before.rose_at)
    stalls = (now - rose_at).astype(jnp.float32) >= PATIENCE * longest.astype(jnp.float32)
    goes_on = (now < longest) & ~(stalls & may_stall)
    after = Exploration(goes_on, best, jnp.where(rises, covered, before.covered), rose_at, now)
    return Exploration(*(jnp.where(before.under_way, new, old) for new, old in zip(after, before, strict=True)))
