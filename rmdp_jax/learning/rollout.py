"""Unroll one policy in E environments."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.env import Env, EpisodeState, auto_reset
from rmdp_jax.learning.scoring import Scorer, Totals
from rmdp_jax.learning.segments import SegmentReturns, add_step
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
    outcome: PyTree  # leaves (T, ...) float32, sums over the environments that did not diverge


_Carry = tuple[EpisodeState, PyTree, SegmentReturns | None]


def rollout(
    env: Env,
    scorer: Scorer,
    act: Callable[[Array, Array], tuple[Array, Array]],
    episodes: EpisodeState,
    starts: PyTree,
    noise: Array,
    segments: SegmentReturns | None = None,
) -> tuple[EpisodeState, Trajectory, Totals, SegmentReturns | None]:
    """T steps of E parallel environments under one policy.

    Args:
        env: the unbatched env.
        scorer: makes rewards of the steps.
        act: observations (E, o) and noise (E, ...) to actions and their log probabilities (E,).
        episodes: states (E,) to go on from.
        starts: pool of first states (P,) for episodes that begin.
        noise: (T, E, ...) of the policy's distribution.
        segments: segment returns of this policy so far, where an assigner looks at them.

    Returns:
        States after the last step, the `Trajectory`, the scorer's totals over steps and environments,
        and the segment returns after these steps. Nothing of size n is kept per transition (unless c is n).
    """
    step_all = jax.vmap(auto_reset(env, starts, noise.shape[1]).step)

    def advance(carry: _Carry, noise: Array) -> tuple[_Carry, tuple[Trajectory, PyTree]]:
        episodes, scores, segments = carry
        action, log_prob = act(episodes.obs, noise)
        with jax.named_scope("physics"):
            after, step = step_all(episodes, action)
        scores, columns, sampled_rewards, stacked = scorer.score(scores, step)
        diverged = jnp.asarray(step.diverged)
        transition = Trajectory(
            obs=episodes.obs,
            next_obs=step.obs,
            action=action,
            log_prob=log_prob,
            reward=columns,
            terminated=step.terminated,
            done=step.terminated | step.truncated,
            diverged=diverged,
            outcome=jax.tree.map(lambda x: _sum_where(~diverged, x.astype(jnp.float32)), step.outcome),
        )
        if segments is not None:
            spec = env.spec
            segments = add_step(segments, sampled_rewards, transition.done, spec.segment_length, spec.episode_length)
        return (after, scores, segments), (transition, stacked)

    start = (episodes, scorer.init, segments)
    (episodes, scores, segments), (trajectory, stacked) = jax.lax.scan(advance, start, noise)
    return episodes, trajectory, scorer.total(scores, stacked), segments


def _sum_where(valid: Array, x: Array) -> Array:
    """Sum over the first axis of the valid rows; x is (E, ...), valid (E,) bool."""
    return jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 1)), x, 0.0).sum(0)
