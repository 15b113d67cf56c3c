"""What people read of an iteration. The host sees this and nothing else of the running state."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from rmdp_jax.assigners.base import harden
from rmdp_jax.learning.ppo import LossParts
from rmdp_jax.m_step import Learned
from rmdp_jax.types import Array, PyTree
from rmdp_jax.welfare import Welfare


class Info(NamedTuple):
    """What people read of one iteration; utility and welfare are running estimates in reference units."""

    welfare: Array  # ()
    utility: Array  # (k, n)
    assignment: Array  # (n,) int32
    policy_sizes: Array  # (k,) int32
    flips: Array  # () int32, agents whose policy changed
    copies: Array  # () int32, policies that became copies of another member
    recovered: Array  # (k,) int32, how often a policy was not finite and was put back
    softness: Array  # () mean entropy of the agents' weights in nats, 0 of a hard assignment
    losses: LossParts  # leaves (k,), means over minibatches
    episodes: Array  # (k,) int32, ended in this iteration
    diverged: Array  # (k,) int32, steps in which the physics broke
    nonfinite_rewards: Array  # (n,) int32, steps of all policies whose reward for an agent was not finite and counts as 0
    outcome: PyTree  # of the env, leaves (k, ...) float32, means over the steps of this iteration
    paid: Array  # (n,) float32, rewards of each agent over all steps of the policy that served it in this iteration
    ended: Array  # (n,) int32, episodes of that policy that ended
    steps: Array  # () int32, that each policy took


def make_info(
    scale: float,
    welfare: Welfare,
    table: Array,
    before: Array,
    after: Array,
    copies: Array,
    recovered: Array,
    learned: Learned,
    steps: int,
) -> Info:
    """Put an `Info` together from utilities (k, n) in returns, and weights (k, n) before and after the reassignment."""
    k, n = table.shape
    labels, served = harden(after), harden(before)
    own = jnp.arange(k)[:, None] == served[None]  # and not an index, as devices share the policies
    return Info(
        welfare=scale * welfare.mean(table[labels, jnp.arange(n)]),
        utility=scale * table,
        assignment=labels,
        policy_sizes=jnp.zeros(k, jnp.int32).at[labels].add(1),
        flips=(served != labels).sum(dtype=jnp.int32),
        copies=copies,
        recovered=recovered.astype(jnp.int32),
        softness=entr(after).sum(0).mean(),
        losses=learned.losses,
        episodes=learned.episodes,
        diverged=learned.diverged,
        nonfinite_rewards=learned.totals.nonfinite.sum(0, dtype=jnp.int32),
        outcome=learned.outcome,
        paid=jnp.where(own, learned.totals.rewards, 0.0).sum(0),
        ended=jnp.where(own, learned.episodes[:, None], 0).sum(0, dtype=jnp.int32),
        steps=jnp.int32(steps),
    )


def recent_returns(info: Info, episode_length: int) -> np.ndarray:
    """Returns (n,) of episodes by the steps of `info` alone, in the units of rewards: the running estimate, of no memory.

    As `learning.utility.utility`: rewards over ended episodes, or steps / episode_length where fewer ended than that takes.
    """
    ended = np.maximum(info.ended, float(info.steps) / episode_length)
    return np.asarray(info.paid, np.float64) / ended
