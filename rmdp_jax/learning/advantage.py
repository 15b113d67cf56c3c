"""Generalised advantage estimation (Schulman et al., 2016) that separates truncation from termination."""

import jax
import jax.numpy as jnp

from rmdp_jax.types import Array, Scalar


def gae(
    reward: Array, value: Array, next_value: Array, terminated: Array, done: Array, discount: Scalar, gae_lambda: Scalar
) -> tuple[Array, Array]:
    """Advantages of one policy, for each of c value columns.

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    s'_t is the true successor, so a truncated episode (done but not terminated) is bootstrapped.

    Args:
        reward, value, next_value: (T, E, c) float32; next_value of the true successors.
        terminated, done: (T, E) bool; done = terminated or truncated.
        discount, gae_lambda: () float32.

    Returns:
        Advantages and value targets A + V, both (T, E, c).
    """
    not_terminated = 1.0 - terminated.astype(reward.dtype)[..., None]
    not_done = 1.0 - done.astype(reward.dtype)[..., None]
    delta = reward + discount * not_terminated * next_value - value

    def backward(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, not_done = now
        advantage = delta + discount * gae_lambda * not_done * later
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, not_done), reverse=True)
    return advantage, advantage + value
