"""Brax pipelines, and warp where it is installed, keep the env contract on every body; native and mjx: test_native.py."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax.env import guard
from rmdp_jax.envs import make
from rmdp_jax.envs.speed import BACKENDS, BODIES

ELSEWHERE = {"native", "mjx"} | ({"warp"} if find_spec("warp") is None else set())
OTHERS = sorted(set(BACKENDS) - ELSEWHERE)


def describe(tree):
    return jax.tree.map(jax.typeof, tree)


# Every backend with two bodies, every body with a backend or more: each pair compiles for some seconds.
PAIRS = [(body, backend) for i, body in enumerate(BODIES) for j, backend in enumerate(OTHERS) if (i + j) % 2 == 0]


@pytest.mark.slow
@pytest.mark.parametrize(("body", "backend"), PAIRS)
def test_contract(body, backend):
    env, population = make(f"{body}_speed", n=3, backend=backend)
    env = guard(env)
    assert env.spec.backend == backend
    kept = []

    def first_step(key, action):
        state, obs = env.reset(key)
        after, stepped = env.step(state, action)
        kept.append(describe(after) == describe(state) and describe(stepped.obs) == describe(obs))
        return obs, stepped, population.rewards(stepped)

    keys = jax.random.split(jax.random.key(0), (2, 2))
    actions = jax.random.uniform(jax.random.key(1), (2, 2, env.spec.action_size), jnp.float32, -1.0, 1.0)
    program = jax.jit(jax.vmap(jax.vmap(first_step)))
    obs, stepped, rewards = program(keys, actions)
    assert kept == [True]
    assert obs.shape == stepped.obs.shape == (2, 2, env.spec.observation_size)
    assert np.isfinite(obs).all()
    assert np.isfinite(stepped.obs).all()
    assert np.isfinite(stepped.outcome.speed).all()
    assert not np.asarray(stepped.diverged).any()
    assert len(np.unique(np.asarray(stepped.outcome.speed))) == 4  # four starts, four ways to go on
    assert rewards.shape == (2, 2, 3)
    np.testing.assert_array_equal(stepped.obs, program(keys, actions)[1].obs)
