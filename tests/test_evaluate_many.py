"""Judging very many agents: estimates are without bias and their standard error is that of the draws too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import Env, EnvSpec, Population, Sizes, Step, TrainConfig, make_evaluate, make_trainer, plain_em
from rmdp_jax.envs import make
from rmdp_jax.trainer import policies_of

K, N, LENGTH, EPISODES = 2, 30, 12, 4


def make_walk():
    """An env whose steps are worth different things, of episodes that end early now and then; agents differ in taste."""

    def reset(key):
        return (jnp.zeros(1), key), jnp.zeros(1)

    def step(state, action):
        where, key = state
        key, other = jax.random.split(key)
        where = where + 0.2 * action + jax.random.uniform(other, (1,))
        return (where, key), Step(where, where[0], where[0] > 5.0, jnp.bool_(False))

    spec = EnvSpec("walk", 1, 1, False, LENGTH, 0.9, 1.0, "jax")
    tastes = jnp.linspace(0.0, 4.0, N)
    return Env(spec, reset, step), Population(tastes, lambda taste, where: jnp.maximum(1.0 - jnp.abs(where - taste), 0.0))


@pytest.fixture(scope="module")
def judges():
    """Exact and estimated judging of the same policies, in one program each."""
    task = make_walk()

    def judge(limit, steps):
        sizes = Sizes(environments=2, unroll=2, minibatches=1, hidden=(4,), agents_exact=limit, utility_steps=steps)
        config = TrainConfig(k=K, n=N, evaluation_episodes=EPISODES, sizes=sizes)
        state = make_trainer(*task, config, plain_em(K, N)).init(jax.random.key(0))
        labels = jnp.arange(N, dtype=jnp.int32) % K
        return jax.jit(jax.vmap(lambda key: make_evaluate(*task, config)(policies_of(state), labels, key)))

    return judge


def test_estimates_are_without_bias(judges, monkeypatch):
    monkeypatch.setattr("rmdp_jax.learning.scoring.BLOCK", 8)  # the last block is no whole one
    keys = jax.random.split(jax.random.key(1), 3000)
    exact, drawn = jax.device_get((judges(N, 5)(jax.random.clone(keys)), judges(8, 5)(keys)))
    np.testing.assert_array_equal(drawn.episode_length, exact.episode_length)  # the very same episodes
    for name in ("utility", "welfare"):
        off = (getattr(drawn, name) - getattr(exact, name)).astype(np.float64)
        assert (np.abs(off.mean(0)) <= 5 * off.std(0) / len(keys) ** 0.5 + 1e-6).all()
    reported = np.sqrt(np.square(drawn.standard_error, dtype=np.float64).mean())
    assert reported == pytest.approx(drawn.welfare.std(dtype=np.float64), rel=0.05)
    assert reported > 1.05 * exact.welfare.std()


def test_all_steps_of_an_episode_are_exact(judges):
    keys = jax.random.split(jax.random.key(1), 3)
    exact, drawn = jax.device_get((judges(N, 64)(jax.random.clone(keys)), judges(8, 64)(keys)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), exact, drawn)


def test_nothing_of_the_size_of_all_agents_is_built_for_a_step():
    task = make("resource_gathering", size=2, n=400)
    sizes = Sizes(environments=2, unroll=2, minibatches=1, hidden=(4,), agents_exact=16)
    config = TrainConfig(k=2, n=400, evaluation_episodes=11, sizes=sizes)
    state = make_trainer(*task, config, plain_em(2, 400)).init(jax.random.key(0))
    judge = jax.jit(make_evaluate(*task, config))
    text = judge.lower(policies_of(state), jnp.zeros(400, jnp.int32), jax.random.key(0)).compile().as_text()
    assert "11,400" not in text
    assert "440,400" not in text
