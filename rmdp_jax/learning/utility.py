"""Running utilities: how well each policy serves each agent, from the policies' own rollouts."""

from typing import NamedTuple

import jax.numpy as jnp

from rmdp_jax.types import Array, Scalar


class Utilities(NamedTuple):
    """Decayed sums of k policies; the utility is a ratio of two of them."""

    reward_sum: Array  # (k, n) float32
    episodes: Array  # (k,) float32, ended
    steps: Array  # (k,) float32


def no_utilities(k: int, n: int) -> Utilities:
    """Nothing seen yet."""
    return Utilities(jnp.zeros((k, n), jnp.float32), jnp.zeros(k, jnp.float32), jnp.zeros(k, jnp.float32))


def accumulate(before: Utilities, decay: Scalar, reward_sum: Array, episodes: Array, steps: int) -> Utilities:
    """Older sums decayed, plus those of one iteration: rewards (k, n), ended episodes (k,) and `steps` of each policy."""
    return Utilities(
        decay * before.reward_sum + reward_sum,
        decay * before.episodes + episodes.astype(jnp.float32),
        decay * before.steps + float(steps),
    )


def utility(sums: Utilities, episode_length: int) -> Array:
    """U (k, n): expected return of an episode, the decayed reward sum over the decayed number of ended episodes.

    The first episodes of parallel environments are truncated at evenly spaced steps (`env.first_episodes`), so ends come at
    their long-run rate from the first iteration on. No episode is longer than `episode_length`: where fewer have ended than
    that takes, as of a policy that has just learned not to fall, steps / episode_length count instead.
    """
    ended = jnp.maximum(sums.episodes, jnp.maximum(sums.steps, 1.0) / episode_length)
    return sums.reward_sum / ended[:, None]
