"""Glimpses: what short stretches of a policy's life would bring every agent if it lived on like that.

Running utilities are means over many episodes. A stretch is one sample of what a policy does: a whole episode where pay comes
with its end, or a few steps where it comes with every step. Steadily held, a stretch is a place that the policy could take.
Of very many agents a random subset is watched (`watched_agents`), and the others follow those like them
(`assigners/neighbours.py`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

LARGEST_WATCHED = 4096  # agents up to which all are watched
WATCHED = 1024  # of more
UNSEEN = float(np.finfo(np.float32).min)  # worse than anything, and no infinity, which turns into NaN beside a zero


class Glimpses(NamedTuple):
    """Of the first B environments of one policy and m watched agents; where E < B, some environments are seen several times.

    Every other glimpse is of every other environment, so of an odd number of environments the last is not watched.
    """

    reward_sum: Array  # (B, m) since the stretch began
    steps: Array  # (B,) float32, likewise
    shown: Array  # (B, m) returns per episode of the last stretch that ended; `UNSEEN` before there was one


def watched_agents(n: int) -> np.ndarray | None:
    """Which of n agents are watched, (m,) int32 in order and the same in every run; None where all are."""
    if n <= LARGEST_WATCHED:
        return None
    return np.sort(np.random.RandomState(0).permutation(n)[:WATCHED]).astype(np.int32)


def no_glimpses(number: int, m: int) -> Glimpses:
    """Nothing seen yet, of `number` environments and m agents."""
    return Glimpses(
        jnp.zeros((number, m), jnp.float32), jnp.zeros(number, jnp.float32), jnp.full((number, m), UNSEEN, jnp.float32)
    )


def glimpse(before: Glimpses, rewards: Array, done: Array, stretch: int | None, episode_length: int) -> Glimpses:
    """One step on.

    Args:
        before: of the first B environments.
        rewards: (E, m) of the step.
        done: (E,) bool, its episode ended.
        stretch: steps after which a stretch ends at the latest; its sum is then scaled by episode_length / steps. A whole
            episode where not given.
        episode_length: steps of an episode at most.
    """
    environments = rewards.shape[0] - rewards.shape[0] % 2 or 1
    watched = jnp.arange(before.steps.shape[0], dtype=jnp.int32) % environments
    reward_sum, steps, done = before.reward_sum + rewards[watched], before.steps + 1.0, done[watched]
    full = steps >= float(stretch) if stretch is not None else jnp.zeros_like(done)
    scale = jnp.where(full, episode_length / steps, 1.0)
    ended = (full | done)[:, None]
    return Glimpses(
        reward_sum=jnp.where(ended, 0.0, reward_sum),
        steps=jnp.where(ended[:, 0], 0.0, steps),
        shown=jnp.where(ended, reward_sum * scale[:, None], before.shown),
    )
