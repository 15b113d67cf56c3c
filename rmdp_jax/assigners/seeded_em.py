"""`seeded_em`: hard EM that begins with groups of agents who like the same behaviours.

When warm-up ends, the segment returns are a vector for each agent; agents are clustered by these, and policies learn to serve
their clusters before EM goes on. K-means++ (Arthur & Vassilvitskii, 2007) on directions.
"""

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import LARGEST_BEHAVIOURS, Assigner, Copies, EStepInput, check_sizes, no_copies
from rmdp_jax.assigners.fixed import First, fixed, name_of, round_robin
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.errors import MOST_ITERATIONS, whole_number
from rmdp_jax.keys import scan_keys
from rmdp_jax.learning.segments import NO_RETURN
from rmdp_jax.types import Array, Key

STEPS = 20  # of Lloyd's algorithm


def seeded_em(
    k: int,
    n: int,
    *,
    warmup: int = 50,
    hold: int = 30,
    tries: int = 8,
    segment_environments: int = 32,
    first: First = round_robin,
) -> Assigner:
    """`plain_em` whose groups are clusters of agents for the first `hold` iterations after warm-up.

    Args:
        k, n: policies and agents.
        warmup: M-steps on `first`.
        hold: iterations in which policies learn to serve their clusters.
        tries: seedings of k-means, of which the best counts.
        segment_environments: environments of each policy whose segments are looked at (B); see `rmdp_jax.learning.segments`.
        first: groups of the warm-up.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    warmup, hold = whole_number("warmup", warmup, 1, MOST_ITERATIONS), whole_number("hold", hold, 1, MOST_ITERATIONS)
    tries = whole_number("tries", tries, 1, 1000)
    segment_environments = whole_number("segment_environments", segment_environments, 1, LARGEST_BEHAVIOURS)

    def reassign(key: Key, labels: Array, inputs: EStepInput) -> tuple[Array, Copies]:
        now = inputs.iteration + 1
        seeding = now == warmup
        seeded = _seed(key, labels, inputs, tries, jnp.where(seeding, STEPS, 0))
        best = best_policies(inputs.utility, labels)
        return jnp.where(seeding, seeded, jnp.where(now >= warmup + hold, best, labels)), no_copies(k)

    options = {
        "warmup": warmup,
        "hold": hold,
        "tries": tries,
        "segment_environments": segment_environments,
        "first": name_of(first),
    }
    return fixed(k, n, first)._replace(
        name="seeded_em", segment_environments=segment_environments, reassign=reassign, options=options
    )


def _seed(key: Key, labels: Array, inputs: EStepInput, tries: int, steps: Array) -> Array:
    """Labels (n,) by clusters; previous ones for agents without reward, and for all if a policy would be empty."""
    assert inputs.segments is not None  # the trainer gives what `Assigner.segment_environments` asks for
    k, n = inputs.utility.shape
    returns = inputs.segments.reshape(-1, n)
    returns = jnp.where((returns > NO_RETURN).all(1, keepdims=True), returns, 0.0).T
    length = jnp.linalg.norm(returns, axis=1, keepdims=True)
    valid = length[:, 0] > 0.0
    groups = cluster_agents(key, returns / jnp.where(length > 0.0, length, 1.0), valid, k, tries=tries, steps=steps)
    member = jax.nn.one_hot(groups, k, axis=0, dtype=jnp.float32) * valid.astype(jnp.float32)[None]
    mean = jnp.matmul(member, inputs.utility.T, precision="highest") / jnp.maximum(member.sum(1, keepdims=True), 1.0)
    policy = match_greedily(mean - mean.mean(1, keepdims=True))
    seeded = jnp.where(valid, policy[groups], labels)
    return jnp.where(jnp.zeros(k, bool).at[seeded].set(True).all(), seeded, labels)


def cluster_agents(key: Key, vectors: Array, valid: Array, k: int, *, tries: int = 8, steps: Array | int = STEPS) -> Array:
    """Clusters by direction: the best of several runs of k-means on unit vectors.

    Each run begins with centres drawn one after another among the agents, in proportion to 1 - cosine to the nearest centre so
    far, half the squared distance; then come Lloyd's steps. The best has the largest sum of cosines.

    Args:
        key: of the draws.
        vectors: (n, m) float32 rows of length 1.
        valid: (n,) bool, agents that count; the others get a label that means nothing.
        k: clusters; some may be empty.
        tries: runs.
        steps: Lloyd's steps of each; a traced 0 costs nothing even under `vmap`.

    Returns:
        Labels (n,) int32.
    """

    def cosines(centres: Array) -> Array:
        return jnp.matmul(vectors, centres.T, precision="highest")  # (n, k)

    def one_run(key: Key) -> tuple[Array, Array]:
        def draw(far: Array, key: Key) -> tuple[Array, Array]:
            weight = jnp.where(valid, jnp.maximum(far, 1e-9), 1e-12)
            centre = vectors[jax.random.categorical(key, jnp.log(weight))]
            return jnp.minimum(far, 1.0 - cosines(centre[None])[:, 0]), centre

        def lloyd(_: Array, centres: Array) -> Array:
            member = jax.nn.one_hot(cosines(centres).argmax(1), k, axis=0, dtype=jnp.float32) * valid.astype(jnp.float32)[None]
            total = jnp.matmul(member, vectors, precision="highest")
            length = jnp.linalg.norm(total, axis=1, keepdims=True)
            return jnp.where(length > 0.0, total / jnp.where(length > 0.0, length, 1.0), centres)

        _, centres = scan_keys(draw, jnp.ones(vectors.shape[0], jnp.float32), key, k)
        near = cosines(jax.lax.fori_loop(0, steps, lloyd, centres))
        return near.argmax(1).astype(jnp.int32), jnp.where(valid, near.max(1), 0.0).sum()

    labels, worth = jax.vmap(one_run)(jax.random.split(key, tries))
    return labels[worth.argmax()]


def match_greedily(worth: Array) -> Array:
    """One column for each row of `worth` (k, k): the largest entry first, then the largest in other rows and columns."""
    k = worth.shape[0]
    index = jnp.arange(k, dtype=jnp.int32)

    def pick(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        remaining, matched = carry
        row, column = jnp.unravel_index(remaining.argmax(), remaining.shape)
        taken = (index[:, None] == row) | (index[None] == column)
        return jnp.where(taken, -jnp.inf, remaining), matched.at[row].set(column.astype(jnp.int32))

    return jax.lax.fori_loop(0, k, pick, (worth, jnp.zeros(k, jnp.int32)))[1]
