"""Acting with what was learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, EnvSpec, Sizes, TrainConfig, make_act
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
    act = make_act(env, CONFIG)
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


@pytest.mark.parametrize("discrete", [True, False])
def test_a_policy_that_is_none_does_not_act(discrete):
    spec = EnvSpec("any", 3, 2, discrete, episode_length=10, discount=0.9, reference_scale=1.0, backend="jax")
    env, _, policies = make_policies(spec)
    act = make_act(env, CONFIG)
    for j in (17, 3, -1, 0.5, "0", None, True, jnp.array([0]), 10**400):
        with pytest.raises(ConfigError, match=r"^policy = .*: must be a whole number from 0 to 2, one of the k = 3 policies$"):
            act(policies, j, OBS)
    np.testing.assert_array_equal(act(policies, np.int64(2), OBS), act(policies, jnp.int32(2), OBS))
    traced = jax.jit(jax.vmap(act, (None, 0, None)))(policies, jnp.array([0, 2, 3, -1], jnp.int32), OBS)  # nobody can look
    np.testing.assert_allclose(traced[:2], jnp.stack([act(policies, j, OBS) for j in (0, 2)]), rtol=1e-5)
    for none in (traced[2:], jax.jit(act)(policies, 5, OBS, jax.random.key(0))):
        assert (np.asarray(none) == -1).all() if discrete else np.isnan(none).all()


def test_what_does_not_fit_is_named():
    spec = EnvSpec("any", 3, 2, False, episode_length=10, discount=0.9, reference_scale=1.0, backend="jax")
    env, _, policies = make_policies(spec)
    act = make_act(env, CONFIG)
    for broken, message in [
        ((policies, 0, OBS[:2]), r"obs of shape \(2,\): must be \(..., 3\), what any shows"),
        ((policies, 0, 1.0), r"obs of shape \(\): must be \(..., 3\)"),
        ((policies, 0, OBS, 0), "key = 0: must be a key, such as jax.random.key"),
        ((jax.tree.map(lambda x: x[:2] if x.ndim else x, policies), 0, OBS), "policies: are 2, but the config has k = 3"),
        ((one_policy(policies, 0), 0, OBS), "policies: are "),
        ((None, 0, OBS), "policies = None: must be Policies, such as Result.policies"),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            act(*broken)
    with pytest.raises(ConfigError, match=r"^config = None: must be the TrainConfig"):
        make_act(env, None)
    np.testing.assert_array_equal(act(policies, 0, [0.5, -1.0, 2.0]), act(policies, 0, OBS))  # a list, as a sensor gives it
