"""From a sample of agents to all of them: each agent gets the label of the sampled agent most like it.

Two agents are alike when the same policies serve them alike: the distance of agents i and l is that of columns i and l of a
table of utilities. Only rewards of observed steps enter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.types import Array

BLOCK = 8192  # agents whose distances to all m sampled ones are held at once


class SampledAgents(NamedTuple):
    """m of n agents."""

    indices: np.ndarray  # (m,) int32, in order
    n: int


def label_like_nearest(sample: SampledAgents, sampled_labels: Array, labels: Array, table: Array, accepted: Array) -> Array:
    """Labels (n,) int32 of all agents after those in the sample have moved.

    Args:
        sample: which agents have moved.
        sampled_labels: (m,) int32, their new labels.
        labels: (n,) int32, labels of all agents before.
        table: (M, n) utilities by which agents are alike.
        accepted: () bool; if not, the labels stay and nothing is computed, even under `vmap`.

    Returns:
        `sampled_labels` for the sampled agents, for all others that of the nearest sampled agent in the table (the
        first of several), in O(M m n) time and O(m) memory beside the table.
    """
    size = min(BLOCK, sample.n)
    blocks = -(-sample.n // size)
    points = table[:, sample.indices]  # (M, m)
    squares = jnp.square(points).sum(0)

    def label_block(block: Array, labels: Array) -> Array:
        begin = jnp.minimum(block * size, sample.n - size)  # the last block begins earlier rather than being shorter
        columns = jax.lax.dynamic_slice_in_dim(table, begin, size, 1)
        distance = squares[None] - 2.0 * jnp.matmul(columns.T, points, precision="highest")  # + |column|^2, the same for all
        return jax.lax.dynamic_update_slice_in_dim(labels, sampled_labels[distance.argmin(1)], begin, 0)

    all_labels = jax.lax.fori_loop(0, jnp.where(accepted, blocks, 0), label_block, labels)
    return jnp.where(accepted, all_labels.at[sample.indices].set(sampled_labels), labels)
