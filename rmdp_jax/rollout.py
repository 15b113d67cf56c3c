"""Unroll one policy in E environments."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.env import Env, EpisodeState, auto_reset
from rmdp_jax.glimpse import Glimpses, glimpse
from rmdp_jax.scoring import Scorer
from rmdp_jax.types import Array, PyTree


class Trajectory(NamedTuple):
    """T steps of one policy in E environments; the trainer's have k in front."""

    obs: Array  # (T, E, o) what the policy acted on, not normalised
    next_obs: Array  # (T, E, o) true successors, not normalised
    action: Array  # (T, E) int32 or (T, E, a) float32
    log_prob: Array  # (T, E)
    reward: Array  # (T, E, c)
    terminated: Array  # (T, E) bool
    done: Array  # (T, E) bool
    diverged: Array  # (T, E) bool
    outcome: PyTree  # leaves (T, ...) float32, means over the environments


_Carry = tuple[EpisodeState, PyTree, Glimpses | None]


def rollout(
    env: Env,
    scorer: Scorer,
    act: Callable[[Array, Array], tuple[Array, Array]],
    episodes: EpisodeState,
    starts: PyTree,
    noise: Array,
    glimpses: Glimpses | None = None,
) -> tuple[EpisodeState, Trajectory, Array, Glimpses | None]:
    """T steps of E parallel environments under one policy.

    Args:
        env: the unbatched env.
        scorer: makes rewards of the steps.
        act: observations (E, o) and noise (E, ...) to actions and their log probabilities (E,).
        episodes: states (E,) to go on from.
        starts: pool of first states (P,) for episodes that begin.
        noise: (T, E, ...) of the policy's distribution.
        glimpses: of this policy so far, where somebody wants to see some.

    Returns:
        States after the last step, the `Trajectory`, what the scorer finishes with (the rewards summed over steps and
        environments (n,)), and the glimpses brought up to date. Nothing of size n is kept per transition (unless c is n).
    """
    step_all = jax.vmap(auto_reset(env, starts).step)

    def advance(carry: _Carry, noise: Array) -> tuple[_Carry, tuple[Trajectory, PyTree]]:
        episodes, scored, glimpses = carry
        action, log_prob = act(episodes.obs, noise)
        after, told = step_all(episodes, action)
        scored, columns, watched, kept = scorer.look(scored, told)
        seen = Trajectory(
            obs=episodes.obs,
            next_obs=told.obs,
            action=action,
            log_prob=log_prob,
            reward=columns,
            terminated=told.terminated,
            done=told.terminated | told.truncated,
            diverged=jnp.asarray(told.diverged),
            outcome=jax.tree.map(lambda x: _mean_where(~jnp.asarray(told.diverged), x.astype(jnp.float32)), told.outcome),
        )
        if glimpses is not None:
            glimpses = glimpse(glimpses, watched, seen.done, env.spec.stretch, env.spec.episode_length)
        return (after, scored, glimpses), (seen, kept)

    (episodes, scored, glimpses), (trajectory, kept) = jax.lax.scan(advance, (episodes, scorer.start, glimpses), noise)
    return episodes, trajectory, scorer.finish(scored, kept), glimpses


def _mean_where(kept: Array, x: Array) -> Array:
    """Mean over the first axis of the rows that are kept; x is (E, ...), kept (E,) bool."""
    rows = jnp.where(kept.reshape(kept.shape + (1,) * (x.ndim - 1)), x, 0.0)
    return rows.sum(0) / jnp.maximum(kept.sum(dtype=jnp.int32), 1).astype(jnp.float32)
