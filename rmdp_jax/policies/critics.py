"""What the critic values: the policy's mixed reward (c = 1), or every agent's own (c = n). One code path for both."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rmdp_jax.types import Array


class CriticKind(NamedTuple):
    """Rewards to reward columns, and the weights by which advantages of the columns are mixed again."""

    size: Callable[[int], int]  # n -> c
    columns: Callable[[Array, Array], Array]  # rewards (..., n), weights of one policy (n,) -> (..., c)
    mix: Callable[[Array], Array]  # weights (n,) -> (c,)


def _shares(weights: Array) -> Array:
    """Weights that sum to 1: a positive factor leaves the best policy as it is and keeps the scale of returns."""
    total = weights.sum()
    return weights / jnp.where(total > 0.0, total, 1.0)


CRITICS = {
    "mixed": CriticKind(
        size=lambda n: 1,
        columns=lambda rewards, weights: jnp.matmul(rewards, _shares(weights), precision="highest")[..., None],
        mix=lambda weights: jnp.ones(1, jnp.float32),
    ),
    "per_agent": CriticKind(size=lambda n: n, columns=lambda rewards, weights: rewards, mix=_shares),
}
