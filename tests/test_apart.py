"""Which runs one program trains: tasks that compute the same, whoever made them, and no others."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, Env, EnvSpec, Population, Step, TrainConfig
from rmdp_jax.envs import make
from rmdp_jax.fingerprint import fingerprint_of_program
from rmdp_jax.running.apart import programs_apart

CONFIG = TrainConfig(k=2, n=3)


def drawn(seed=0, start=0.0, pays=1.0, scale=1.0, weights=None):
    """A task made anew, whose agents are drawn; what is given beside the seed is closed over."""
    layout, prices = np.arange(3.0, dtype=np.float32) + np.float32(start), jnp.array([pays, 1.0], jnp.float32)
    inner = jax.jit(lambda x: x * prices[0])

    def step(state, action):
        state = state + 1
        return state, Step(jnp.ones(3), {"x": action[0] + jnp.asarray(layout)[state]}, state >= 2, jnp.bool_(False))

    spec = EnvSpec("own", 3, 1, False, 2, 1.0, scale, "jax", options={"seed": seed})
    agents = jax.random.uniform(jax.random.key(seed), (3,))
    env = Env(spec, lambda key: (jnp.int32(0), jnp.ones(3)), step)
    people = Population(agents, lambda agent, outcome: inner(agent * outcome["x"]), weights=weights)
    return env, people, CONFIG


def test_agents_alone_are_no_other_program():
    assert programs_apart([drawn(0), drawn(1), drawn(2)]) == [0, 0, 0]
    tasks = [(*make("resource_gathering", size=2, seed=seed), CONFIG) for seed in range(3)]
    assert programs_apart(tasks) == [0, 0, 0]


@pytest.mark.parametrize("other", [{"start": 1.0}, {"pays": 2.0}, {"scale": 2.0}])
def test_another_env_or_reward_is_another_program(other):
    assert programs_apart([drawn(0), drawn(1, **other), drawn(2), drawn(3, **other)]) == [0, 1, 0, 1]


def test_weights_are_part_of_a_program_only_where_limits_count_them():
    tasks = [drawn(seed, weights=np.arange(1, 4, dtype=np.float32) + np.float32(seed)) for seed in (0, 1)]
    assert programs_apart(tasks) == [0, 0]
    limited = replace(CONFIG, at_most=(5,))
    assert programs_apart([(env, population, limited) for env, population, _ in tasks]) == [0, 1]


def test_an_env_that_breaks_its_word_is_named():
    env, population, config = drawn(0)
    with pytest.raises(ConfigError, match="env = own: step returns"):
        programs_apart([drawn(1), (env._replace(step=lambda state, action: state), population, config)])


def test_constants_of_inner_programs_are_seen():
    def program(value):
        held = jnp.full(3, value)
        inner = jax.jit(lambda x: x + held)
        return fingerprint_of_program(lambda x: jax.lax.cond(x[0] > 0, inner, lambda y: y, x), jnp.zeros(3))

    assert program(1.0) == program(1.0)
    assert program(1.0) != program(2.0)
