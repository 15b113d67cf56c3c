"""Groups by policy gradients: who wishes for the opposite is distinguished, whatever anyone is paid."""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config

from rmdp_jax import Population, affinity, fixed
from rmdp_jax.policies.model import describe_policies
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running import cluster
from rmdp_jax.running.affinity import _observe_directions, _residual, affinity_batch, returns_to_go
from rmdp_jax.running.cluster import group

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_observations(monkeypatch):
    monkeypatch.setattr(cluster, "CLUSTER_TRANSITIONS", 512)


def same_groups(labels, other):
    labels, other = np.asarray(labels), np.asarray(other)
    return ((labels[:, None] == labels[None]) == (other[:, None] == other[None])).all()


def test_opposite_wishes_are_two_groups_in_every_run_of_a_batch():
    env, population = make_probe(PROBES["both"], 6)
    configs = [probe_config(2, 6, 40), probe_config(2, 6, 40)]
    for assigner, config in zip(affinity_batch(env, [population] * 2, configs), configs, strict=True):
        assert same_groups(assigner.init(jax.random.key(0)), [0, 0, 0, 1, 1, 1])
        assert assigner.pretraining == config.transitions // 2 + 512
        assert assigner.name == "affinity"


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_the_same_seed_gives_the_same_groups():
    env, population = make_probe(PROBES["constant"], 7)  # no gradient distinguishes anybody
    once, again = (affinity(env, population, probe_config(3, 7, 40)).init(jax.random.key(0)).tolist() for _ in range(2))
    assert once == again
    assert set(once) == {0, 1, 2}, "a policy was left empty"


class Paid(NamedTuple):
    zero: jax.Array  # for action 0
    one: jax.Array


@pytest.mark.parametrize(("trunk", "units"), [("separate", 4), ("shared", 4), ("separate", 128)])  # the last is projected
def test_directions_are_by_the_difference_of_actions_and_not_by_the_size_of_pay(trunk, units):
    env, _ = make_probe(PROBES["action"], 1)
    pay = np.array([[1, 0], [0, 1], [2e3, 0], [1e-3, 5e-3], [1, 1], [0, 0]], np.float32)
    population = Population(Paid(*jnp.asarray(pay.T)), lambda agent, outcome: jnp.where(outcome.action == 0, *agent))
    config = probe_config(1, 6, 1, hidden=(units,), trunk=trunk)
    like = describe_policies(env.spec, config.sizes, 1, 6)
    policies = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), like)
    run = RunSpec(population, config, fixed(1, 6, np.zeros(6, np.int32)))
    directions = jax.jit(lambda key: _observe_directions(env, run, (population.agents, None), policies, key))(jax.random.key(0))
    assert len(directions) == (400 if units == 128 else 2 * units + 2 * units + 2)  # of two layers, or projected
    cosines = np.asarray(directions.T @ directions)
    sign = np.sign(pay[:, 0] - pay[:, 1])  # + - + - 0 0
    np.testing.assert_allclose(cosines, np.outer(sign, sign), atol=1e-4)


def test_returns_to_go_by_hand():
    rewards, done = jnp.array([[1.0, 4.0], [2.0, 0.0], [3.0, 8.0]]), jnp.array([[False, False], [True, False], [False, False]])
    assert returns_to_go(rewards, done, 0.5).tolist() == [[2.0, 6.0], [2.0, 4.0], [3.0, 8.0]]


def test_what_is_linear_in_the_observation_is_taken_out():
    seen = jax.random.normal(jax.random.key(0), (200, 3)) * jnp.array([[1.0, 100.0, 0.0]])
    linear = (7.0 + seen @ jnp.array([1.0, -2.0, 5.0]))[:, None]
    noise = jax.random.normal(jax.random.key(1), (200, 1))
    left = _residual(jnp.concatenate([linear, noise], axis=1), seen)
    assert jnp.abs(left[:, 0]).max() < 1e-3 * jnp.abs(linear).max()
    # the residual of least squares, by another solver
    basis = np.concatenate([np.ones((200, 1)), np.asarray(seen[:, :2])], axis=1)
    expected = np.asarray(noise) - basis @ np.linalg.lstsq(basis, np.asarray(noise), rcond=None)[0]
    np.testing.assert_allclose(left[:, 1:], expected, atol=1e-3)


def test_groups_are_those_of_the_highest_density():
    vectors = np.random.default_rng(3).normal(size=(4, 7))
    vectors /= np.linalg.norm(vectors, axis=0)
    cosines = vectors.T @ vectors

    def density(labels):
        inside = [np.flatnonzero(np.array(labels) == j) for j in range(2)]
        return sum(cosines[np.ix_(some, some)].sum() / len(some) for some in inside)

    best = max((labels for labels in product(range(2), repeat=7) if len(set(labels)) == 2), key=density)
    assert same_groups(group(vectors.astype(np.float32), probe_config(2, 7, 1)), best)
