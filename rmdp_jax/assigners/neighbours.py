"""What was found out for a few watched agents, for everybody: each agent goes where the watched one most like it goes.

Two agents are alike when the same policies serve them alike: the distance of agents i and l is that of columns i and l of a
table of utilities. Only rewards of observed steps enter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

BLOCK = 8192  # agents whose distances to all m watched ones are held at once


class Crowd(NamedTuple):
    """n agents, m of whom are watched."""

    watched: np.ndarray  # (m,) int32, in order
    n: int


def follow_nearest(crowd: Crowd, found: Array, labels: Array, table: Array, moves: Array) -> Array:
    """Labels (n,) int32 of everybody after the watched agents have moved.

    Args:
        crowd: who is watched.
        found: (m,) int32, new labels of the watched agents.
        labels: (n,) int32, labels so far.
        table: (M, n) utilities by which agents are alike.
        moves: () bool; if not, the labels stay and nothing is computed, even under `vmap`.

    Returns:
        `found` for the watched, for all others that of the watched agent nearest in the table (the first of several),
        in O(M m n) time and O(m) memory beside the table.
    """
    size = min(BLOCK, crowd.n)
    blocks = -(-crowd.n // size)
    places = table[:, crowd.watched]  # (M, m)
    squares = jnp.square(places).sum(0)

    def label_block(block: Array, labels: Array) -> Array:
        begin = jnp.minimum(block * size, crowd.n - size)  # the last block begins earlier rather than being shorter
        columns = jax.lax.dynamic_slice_in_dim(table, begin, size, 1)
        distance = squares[None] - 2.0 * jnp.matmul(columns.T, places, precision="highest")  # + |column|^2, the same for all
        return jax.lax.dynamic_update_slice_in_dim(labels, found[distance.argmin(1)], begin, 0)

    everybody = jax.lax.fori_loop(0, jnp.where(moves, blocks, 0), label_block, labels)
    return jnp.where(moves, everybody.at[crowd.watched].set(found), labels)
