"""Clusters of agents against brute force; matching by hand; when `seeded_em` makes its groups, and of whom."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, EStepInput, make_trainer
from rmdp_jax.assigners.seeded_em import cluster_agents, match_greedily, seeded_em
from rmdp_jax.learning.segments import NO_RETURN
from tests.probes import PROBES, make_probe, probe_config

cluster = jax.jit(partial(cluster_agents, k=2))


def unit_rows(rng, n, m):
    rows = rng.normal(size=(n, m))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def worth(vectors, labels, k):
    """Sum of cosines of each vector to the direction of its cluster's mean."""
    return sum(np.linalg.norm(vectors[labels == j].sum(0)) for j in range(k))


def test_clusters_are_most_often_the_best_of_all_partitions():
    rng, shares = np.random.default_rng(0), []
    for seed in range(20):
        vectors = unit_rows(rng, 7, 3)
        found = worth(vectors, np.asarray(cluster(jax.random.key(seed), vectors, jnp.ones(7, bool))), 2)
        shares.append(found / max(worth(vectors, np.array(labels), 2) for labels in product(range(2), repeat=7)))
    assert np.isclose(shares, 1.0).sum() >= 16  # directions without any structure have several local optima
    assert 0.95 <= min(shares) <= max(shares) <= 1.0 + 1e-5


def test_agents_that_never_got_anything_do_not_count():
    vectors = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    live = jnp.array([True, True, True, False, False])
    for seed in range(5):
        labels = cluster(jax.random.key(seed), vectors, live).tolist()
        assert labels[0] == labels[1] != labels[2]


def test_matching_by_hand():
    # 9 first; then the 8 and the 7 have their row or column taken, and what is left is 1 and 5
    worth = jnp.array([[9.0, 8.0, 0.0], [7.0, 1.0, 3.0], [0.0, 5.0, 2.0]])
    assert match_greedily(worth).tolist() == [0, 2, 1]


# Agents 0 and 1 like what one half of the segments shows, 2 and 3 the other; agent 4 has seen nothing that it likes.
TASTES = jnp.array([[1.0, 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 1.0, 0.0]])


def run(assigner, segments, utility, iterations):
    reassign, state, labels = jax.jit(assigner.reassign), assigner.init(jax.random.key(0)), []
    for iteration in range(iterations):
        state, copies = reassign(jax.random.key(iteration), state, EStepInput(utility, jnp.int32(iteration), 0.0, segments))
        assert copies.sources.tolist() == [0, 1]
        labels.append(state.tolist())
    return labels


def test_groups_are_clusters_held_for_a_while():
    segments = jnp.stack([TASTES, TASTES])
    utility = jnp.array([[0.0, 0.0, 1.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.1, 1.0]])
    labels = run(seeded_em(2, 5, warmup=3, hold=2, segment_environments=2), segments, utility, 6)
    assert labels[:2] == [[0, 1, 0, 1, 0]] * 2
    assert labels[2:4] == [[1, 1, 0, 0, 0]] * 2, "the second policy is better for the first cluster; agent 4 stays"
    assert labels[4:] == [[1, 1, 0, 1, 1]] * 2, "everybody's best policy"


def test_segments_that_nobody_has_seen_are_left_out():
    segments = jnp.stack([TASTES, jnp.full_like(TASTES, NO_RETURN)])
    labels = run(seeded_em(2, 5, warmup=1, hold=9, segment_environments=2), segments, jnp.zeros((2, 5)), 1)[0]
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_no_cluster_empties_a_policy():
    alike = jnp.ones((2, 2, 5))  # one cluster, and an empty one
    assert run(seeded_em(2, 5, warmup=1, segment_environments=2), alike, jnp.zeros((2, 5)), 1) == [[0, 1, 0, 1, 0]]


@pytest.mark.slow
def test_wishes_are_told_apart_before_any_policy_serves_them():
    """Round robin gives each policy one agent of each wish, so that plain EM has to wait for luck; segments tell at once."""
    trainer = make_trainer(
        *make_probe(PROBES["action"], 4), probe_config(2, 4, 30), seeded_em(2, 4, warmup=2, segment_environments=8)
    )

    def learn(key):
        return jax.lax.fori_loop(0, 2, lambda _, state: trainer.step(state)[0], trainer.init(key)).assignment

    for labels in np.asarray(jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), 8))):
        assert labels[0] == labels[1] != labels[2] == labels[3]


@pytest.mark.parametrize("name", ["warmup", "hold", "tries", "segment_environments"])
def test_bad_arguments_are_named(name):
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        seeded_em(2, 5, **{name: 0})
