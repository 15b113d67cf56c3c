"""Segment returns: what short segments of a policy's episodes would bring every agent if whole episodes were like them.

Running utilities are means over many episodes. A segment is one sample of a behaviour: a whole episode where reward comes at
its end, or a few steps where it comes at every step (`EnvSpec.segment_length`). Of more than `LARGEST_UNSAMPLED` agents a
random sample has them (`scored_agents`); the others follow those like them (`assigners/sampled_agents.py`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rmdp_jax.learning.utility import Utilities
from rmdp_jax.types import Array

LARGEST_UNSAMPLED = 4096  # agents up to which all have segment returns
SAMPLE_SIZE = 1024  # agents that have them where there are more
NO_RETURN = float(np.finfo(np.float32).min)  # lower than any return, and no infinity, which turns into NaN beside a zero


class SegmentReturns(NamedTuple):
    """Of the first B environments of one policy and m agents; where E < B, some environments are in it several times.

    Even rows are of other environments than odd ones, so that one half can test what was found in the other; of an odd number
    of environments the last is left out.
    """

    reward_sum: Array  # (B, m) of the running segment
    steps: Array  # (B,) float32, likewise
    returns: Array  # (B, m) of the last whole segment, scaled to an episode; `NO_RETURN` before there was one


def expected_returns(segments: SegmentReturns, sums: Utilities, segment_length: int | None, episode_length: int) -> Array:
    """Returns (k, B, m) of episodes that go on like the last segments, for as long as the policies' episodes last.

    Who runs fast and falls would otherwise be taken for one who runs on. The mean length of episodes is that of `sums`, whose
    leaves are (k, ...); whole episodes, where `segment_length` is None, are what they are.
    """
    if segment_length is None:
        return segments.returns
    length = jnp.minimum(sums.steps / jnp.maximum(sums.episodes, 1.0), float(episode_length))
    share = jnp.broadcast_to((length / episode_length)[:, None, None], segments.returns.shape)
    return jnp.where(segments.returns > NO_RETURN, share * segments.returns, NO_RETURN)


def scored_agents(n: int) -> np.ndarray | None:
    """Indices (m,) int32 of the agents of n that are scored, in order, the same in every run; None where all are."""
    if n <= LARGEST_UNSAMPLED:
        return None
    return np.sort(np.random.RandomState(0).permutation(n)[:SAMPLE_SIZE]).astype(np.int32)


def no_segments(number: int, m: int) -> SegmentReturns:
    """Nothing seen yet, of `number` environments (B) and m agents."""
    return SegmentReturns(
        jnp.zeros((number, m), jnp.float32), jnp.zeros(number, jnp.float32), jnp.full((number, m), NO_RETURN, jnp.float32)
    )


def add_step(
    before: SegmentReturns, rewards: Array, done: Array, segment_length: int | None, episode_length: int
) -> SegmentReturns:
    """One step on.

    Args:
        before: of the first B environments.
        rewards: (E, m) of the step.
        done: (E,) bool, its episode ended.
        segment_length: steps after which a segment ends at the latest; its sum is then scaled by episode_length / steps. One
            that its episode ends before is reported as it is, so that what falls ranks low. A whole episode where not given.
        episode_length: steps of an episode at most.
    """
    environments = rewards.shape[0] - rewards.shape[0] % 2 or 1
    rows = jnp.arange(before.steps.shape[0], dtype=jnp.int32) % environments
    reward_sum, steps, done = before.reward_sum + rewards[rows], before.steps + 1.0, done[rows]
    full = steps >= float(segment_length) if segment_length is not None else jnp.zeros_like(done)
    scale = jnp.where(full, episode_length / steps, 1.0)
    ended = (full | done)[:, None]
    return SegmentReturns(
        reward_sum=jnp.where(ended, 0.0, reward_sum),
        steps=jnp.where(ended[:, 0], 0.0, steps),
        returns=jnp.where(ended, reward_sum * scale[:, None], before.returns),
    )
