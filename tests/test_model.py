"""Acting with what was learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EnvSpec, Sizes, TrainConfig, make_act
from rmdp_jax.env import Env
from rmdp_jax.policies.model import Policies, decide, make_model, one_policy, repeat
from rmdp_jax.policies.networks import Params

K, OBS = 3, jnp.array([0.5, -1.0, 2.0])
CONFIG = TrainConfig(k=K, n=4, sizes=Sizes(hidden=(8,)))


def make_policies(spec):
    """The env, of which only the spec counts, its model, and k policies that differ."""
    model = make_model(spec, CONFIG.sizes, K, CONFIG.n)
    own = jax.vmap(model.networks.init_own)(jax.random.split(jax.random.key(1), K))
    params = Params(model.networks.init_shared(jax.random.key(0)), jax.tree.map(lambda x: 9.0 * x, own))
    return Env(spec, None, None), model, Policies(params, repeat(model.normalizer.init(), K), jnp.float32(5.0))


@pytest.mark.parametrize("discrete", [True, False])
def test_a_policy_acts(discrete):
    spec = EnvSpec("any", 3, 2, discrete, episode_length=10, discount=0.9, reference_scale=1.0, backend="jax")
    env, model, policies = make_policies(spec)
    act = jax.jit(make_act(env, CONFIG))
    likely = [act(policies, j, OBS) for j in range(K)]
    for j, action in enumerate(likely):
        expected = model.distribution.mode(decide(model, one_policy(policies, j), OBS))
        np.testing.assert_allclose(action, expected if discrete else np.clip(expected, -1.0, 1.0), rtol=1e-5)
        assert action.shape == (() if discrete else (2,))
    drawn = jax.vmap(lambda key: act(policies, 0, OBS, key))(jax.random.split(jax.random.key(2), 200))
    assert drawn.shape == (200, *likely[0].shape)
    assert len(np.unique(np.asarray(drawn), axis=0)) > 1
    assert float(jnp.abs(drawn).max()) <= 1.0
    assert act(policies, 1, jnp.stack([OBS] * 5), jax.random.key(0)).shape == (5, *likely[0].shape)
