"""Glimpses: what short stretches of a policy's life would bring every agent if it lived on like that.

Running utilities are means over many episodes. A stretch is one sample of what a policy does: a whole episode where pay comes
with its end, or a few steps where it comes with every step. Steadily held, a stretch is a place that the policy could take.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

UNSEEN = float(np.finfo(np.float32).min)  # worse than anything, and no infinity, which turns into NaN beside a zero


class Glimpses(NamedTuple):
    """Of the first B environments of one policy; where there are fewer, some are seen several times."""

    reward_sum: Array  # (B, n) since the stretch began
    steps: Array  # (B,) float32, likewise
    shown: Array  # (B, n) returns per episode of the last stretch that ended; `UNSEEN` before there was one


def no_glimpses(number: int, n: int) -> Glimpses:
    """Nothing seen yet, of `number` environments and n agents."""
    return Glimpses(
        jnp.zeros((number, n), jnp.float32), jnp.zeros(number, jnp.float32), jnp.full((number, n), UNSEEN, jnp.float32)
    )


def glimpse(before: Glimpses, rewards: Array, done: Array, stretch: int | None, episode_length: int) -> Glimpses:
    """One step on.

    Args:
        before: of the first B environments.
        rewards: (E, n) of the step.
        done: (E,) bool, its episode ended.
        stretch: steps after which a stretch ends at the latest; its sum is then scaled by episode_length / steps. A whole
            episode where not given.
        episode_length: steps of an episode at most.
    """
    watched = jnp.arange(before.steps.shape[0], dtype=jnp.int32) % rewards.shape[0]
    reward_sum, steps, done = before.reward_sum + rewards[watched], before.steps + 1.0, done[watched]
    full = steps >= float(stretch) if stretch is not None else jnp.zeros_like(done)
    scale = jnp.where(full, episode_length / steps, 1.0)
    ended = (full | done)[:, None]
    return Glimpses(
        reward_sum=jnp.where(ended, 0.0, reward_sum),
        steps=jnp.where(ended[:, 0], 0.0, steps),
        shown=jnp.where(ended, reward_sum * scale[:, None], before.shown),
    )
