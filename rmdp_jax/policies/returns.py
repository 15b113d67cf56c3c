"""Running scale of returns, one per policy: what policies and critics learn from is of size 1 whatever the agents' units.

    G_t = r_t + gamma (1 - done_t) G_{t+1}          within an unroll, without bootstrapping
    rms = sqrt(decayed mean over iterations of the mean of G^2 over steps, environments and reward columns)

Rewards are divided by rms, so that rewards times any s > 0 lead to the same learning, bit for bit where s is a power of 2 (as
long as float32 holds the squares of returns: of sizes from 1e-18 to 1e18).
Utilities stay in the agents' units. As in VecNormalize of Stable-Baselines3, but forward in time there, and cumulative.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.types import Array, PyTree, Scalar

DECAY = 0.95  # of an iteration's weight in the next one


class ReturnScaler(NamedTuple):
    """Pure functions over the running statistics of one policy's returns."""

    init: Callable[[], PyTree]
    # statistics, rewards (T, E, c), done (T, E), discount, axis of a `vmap` to average over -> statistics
    update: Callable[[PyTree, Array, Array, Scalar, str | None], PyTree]
    scale: Callable[[PyTree], Array]  # statistics -> () float32, what rewards are divided by


class ReturnStatistics(NamedTuple):
    """Decayed sums over iterations, each () float32."""

    squares: Array
    weight: Array


def running_scale() -> ReturnScaler:
    """Root mean square of returns; 1 as long as no reward but 0 was seen."""

    def update(
        statistics: ReturnStatistics, reward: Array, done: Array, discount: Scalar, axis: str | None
    ) -> ReturnStatistics:
        def backward(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            reward, done = now
            returns = reward + discount * jnp.where(done[:, None], 0.0, later)
            return returns, returns

        _, returns = jax.lax.scan(backward, jnp.zeros_like(reward[0]), (reward, done), reverse=True)
        squares = jnp.square(returns).mean()
        seen = ReturnStatistics(squares if axis is None else jax.lax.pmean(squares, axis), jnp.float32(1))
        return jax.tree.map(lambda before, new: DECAY * before + new, statistics, seen)

    def scale(statistics: ReturnStatistics) -> Array:
        seen = statistics.squares > 0.0
        mean = jnp.where(seen, statistics.squares, 1.0) / jnp.where(seen, statistics.weight, 1.0)
        return jnp.where(seen, jnp.sqrt(mean), 1.0)

    return ReturnScaler(lambda: ReturnStatistics(jnp.float32(0), jnp.float32(0)), update, scale)


def no_scale() -> ReturnScaler:
    """Rewards as they are."""
    return ReturnScaler(
        lambda: (), lambda statistics, reward, done, discount, axis: statistics, lambda statistics: jnp.float32(1)
    )


RETURN_SCALERS = {True: running_scale, False: no_scale}
