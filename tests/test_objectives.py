"""Vector rewards as agents: the convex coverage set of deep-sea treasure, exactly."""

import sys
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, Env, EnvSpec, Step
from rmdp_jax.checks import check_env
from rmdp_jax.envs import weighted_objectives
from rmdp_jax.envs.objectives import best_of

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import deep_sea_treasure as sea

FRONT = np.stack([-(sea.DEPTH + np.arange(10.0)), sea.VALUE], 1)  # (10, 2) time, treasure; each by a shortest way
WEIGHTS = np.stack([1 - np.linspace(0, 1, 41), np.linspace(0, 1, 41)], 1)


@pytest.fixture(scope="module")
def env():
    spec = EnvSpec("deep_sea_treasure", 21, 4, True, 100, 1.0, 1.0, "jax")
    return Env(spec, lambda key: sea.start(jnp.zeros(2, jnp.int32)), sea.step)


def best_returns(env, population):
    """Best return of every agent (n,) by value iteration over the 110 cells."""
    cells = jnp.asarray(np.argwhere(np.ones((11, 10))), jnp.int32)

    def move(cell, action):
        to, step = env.step(cell, action)
        return to, step.terminated, population.rewards(step)

    to, ends, paid = jax.jit(jax.vmap(jax.vmap(move, (None, 0)), (0, None)))(cells, jnp.arange(4))  # (110, 4, ...)
    successor, ends, paid = np.asarray(to) @ [10, 1], np.asarray(ends), np.asarray(paid, float)
    value = np.zeros((110, population.n))
    for _ in range(100):  # the horizon
        value = (paid + np.where(ends[..., None], 0.0, value[successor])).max(1)
    return value[0]


def test_the_value_of_the_convex_coverage_set_of_deep_sea_treasure_is_exact(env):
    """Value iteration on the env for each weighting brings what the best of the front does, and no more."""
    population = weighted_objectives(env, WEIGHTS, front=FRONT)
    check_env(env, population)
    assert sorted(population.agents) == ["time", "treasure"]
    exact = (WEIGHTS @ FRONT.T).max(1)
    np.testing.assert_allclose(best_returns(env, population), exact, atol=1e-4)
    np.testing.assert_allclose(population.best_return(population.agents), exact, atol=1e-5)
    assert population.upper_bound(10) == pytest.approx(exact.mean(), abs=1e-5)


def test_the_bound_of_k_is_that_of_the_best_k_of_the_front(env):
    bound = weighted_objectives(env, WEIGHTS, front=FRONT).upper_bound
    returns = WEIGHTS @ FRONT.T
    for k in (1, 3):
        by_hand = max(returns[:, list(chosen)].max(1).mean() for chosen in combinations(range(10), k))
        assert bound(k) == pytest.approx(by_hand, abs=1e-5)
    assert bound(1) < bound(2) < bound(10) == bound(40)
    many = np.random.RandomState(0).normal(size=(4, 60))
    assert best_of(many, 30) == pytest.approx(many.max(1).mean())  # too many sets: everybody their own


def test_nothing_is_known_without_a_front(env):
    population = weighted_objectives(env, WEIGHTS)
    assert population.upper_bound(3) is None
    assert population.best_return(population.agents) is None


def vector_env(outcome):
    step = lambda state, action: (state, Step(jnp.zeros(1), outcome, jnp.bool_(False), jnp.bool_(False)))  # noqa: E731
    return Env(EnvSpec("vector", 1, 2, True, 3, 0.9, 1.0, "jax"), lambda key: (jnp.int32(0), jnp.zeros(1)), step)


def test_a_vector_of_rewards_is_weighed_by_its_components():
    env = vector_env(jnp.array([1.0, 10.0, 100.0]))
    population = weighted_objectives(env, [[1, 2, 3], [0, 0.5, 0]])
    assert list(population.agents) == ["outcome_0", "outcome_1", "outcome_2"]
    np.testing.assert_allclose(population.rewards(env.step(jnp.int32(0), jnp.int32(0))[1]), [321.0, 5.0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 2.0]], r"weights of shape \(1, 2\): must be finite numbers of shape \(rows, 3\), a column for each objective"),
        ([1.0, 2.0, 3.0], r"weights of shape \(3,\)"),
        ([[1.0, np.nan, 2.0]], "weights: some are not finite"),
        ([["a", "b", "c"]], "weights = "),
        (np.zeros((0, 3)), r"weights of shape \(0, 3\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        weighted_objectives(vector_env(jnp.zeros(3)), weights)
