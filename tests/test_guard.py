"""What `guard` keeps from learners, and from envs. (Non-finite steps: contracts/test_env_contract.py.)"""

import jax
import jax.numpy as jnp
import pytest

from rmdp_jax import Env, EnvSpec, Step
from rmdp_jax.env import guard


def echo(observation_limit):
    """An env whose observation is a thousand times the action it was given."""
    spec = EnvSpec("echo", 1, 1, False, 10, 0.9, 1.0, "jax", observation_limit=observation_limit)
    no = jnp.bool_(False)
    return Env(
        spec,
        reset=lambda key: (jnp.int32(0), jnp.zeros(1)),
        step=lambda state, action: (state + 1, Step(1000.0 * action, action[0], no, no)),
    )


@pytest.mark.parametrize(("action", "limit", "diverged"), [(0.5, 501.0, False), (0.5, 500.0, True), (-0.5, 500.0, True)])
def test_an_observation_that_explodes_ends_the_episode(action, limit, diverged):
    env = guard(echo(limit))
    state, _ = env.reset(jax.random.key(0))
    _, stepped = env.step(state, jnp.array([action]))
    assert bool(stepped.diverged) is bool(stepped.terminated) is diverged
    assert stepped.obs.tolist() == [0.0 if diverged else 1000.0 * action]


@pytest.mark.parametrize(("action", "seen"), [(0.3, 300.0), (7.0, 1000.0), (-7.0, -1000.0)])
def test_the_env_sees_actions_within_its_bounds(action, seen):
    env = guard(echo(float("inf")))
    state, _ = env.reset(jax.random.key(0))
    assert env.step(state, jnp.array([action]))[1].obs[0] == pytest.approx(seen)
