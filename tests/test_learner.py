from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EnvSpec, Rates, Sizes, fixed
from rmdp_jax.learning.learner import Learner, Schedule, _apply_update, init_learner, make_improve, make_optimizer
from rmdp_jax.learning.ppo import Batch, ppo_loss
from rmdp_jax.policies.model import make_model

K, B, MINIBATCHES, EPOCHS = 2, 16, 4, 3
SIZES = Sizes(environments=4, unroll=4, epochs=EPOCHS, minibatches=MINIBATCHES, hidden=(4,))
SPEC = EnvSpec("none", 3, 2, True, 1, 0.9, 1.0, "jax")
RATES = Rates(max_kl=1e6)
SCHEDULE = Schedule(jnp.float32(1e-2), jnp.float32(0.01))


def make_parts(k, trunk="separate"):
    """A learner of k policies and its jitted M-step, `improve(rates, key, learner, batch) -> learner, LossParts`."""
    model = make_model(SPEC, replace(SIZES, trunk=trunk), k, k)
    assigner = fixed(k, k, jnp.arange(k))
    improve = make_improve(partial(ppo_loss, model), SIZES, assigner.weights, assigner.descend)
    labels = jnp.arange(k, dtype=jnp.int32)

    def run(rates, key, learner, batch):
        learner, _, losses = improve(rates, SCHEDULE, key, learner, labels, batch)
        return learner, losses

    keys = jax.random.split(jax.random.key(1), K)[:k]
    return init_learner(model.networks, RATES, jax.random.key(0), keys), jax.jit(run)


@pytest.fixture(scope="module")
def two():
    return make_parts(K)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return Batch(
        obs=jnp.asarray(rng.normal(size=(K, B, 3)), jnp.float32),
        action=jnp.asarray(rng.integers(0, 2, (K, B)), jnp.int32),
        log_prob=jnp.full((K, B), np.log(0.5), jnp.float32),
        advantage=jnp.asarray(rng.normal(size=(K, B, 1)), jnp.float32),
        target=jnp.asarray(rng.normal(size=(K, B, 1)), jnp.float32),
    )


def policy(tree, j):
    return jax.tree.map(lambda x: np.asarray(x[j]), tree)


def all_of(learner, j):
    """Parameters and optimiser state of policy j."""
    return policy((learner.params.own, learner.opt_state.own), j)


def updates_of(learner):
    """How many updates Adam has made for each policy (k,)."""
    return _count(learner.opt_state.own).tolist()


def _count(opt_state):
    (count,) = [leaf for leaf in jax.tree.leaves(opt_state) if leaf.dtype == jnp.int32]
    return count


def changed(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_optimizer_by_hand():
    optimizer = make_optimizer(Rates(max_gradient_norm=0.5, adam_epsilon=1.0), 0.1)
    gradient = {"a": jnp.array([3.0]), "b": jnp.array([-4.0])}  # norm 5, clipped to 0.3 and -0.4
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        step, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(step["a"], [-0.1 * 0.3 / 1.3], rtol=1e-5)  # the first step of Adam is g / (|g| + eps)
    np.testing.assert_allclose(step["b"], [0.1 * 0.4 / 1.4], rtol=1e-5)


def test_one_policy_does_not_feel_another(two, batch):
    learner, improve = two
    wild = batch._replace(
        target=batch.target.at[0].mul(1e4), advantage=batch.advantage.at[0].add(1e3 * jnp.arange(B, dtype=jnp.float32)[:, None])
    )
    plain, losses = improve(RATES, jax.random.key(2), learner, batch)
    other, wild_losses = improve(RATES, jax.random.key(2), learner, wild)
    jax.tree.map(np.testing.assert_array_equal, all_of(other, 1), all_of(plain, 1))
    assert changed(policy(other.params.own, 0), policy(plain.params.own, 0))
    assert wild_losses.value_loss[0] > 1e4 * losses.value_loss[0]
    assert wild_losses.value_loss[1] == losses.value_loss[1]


def test_policies_together_equal_policies_alone(two, batch):
    learner, improve = two
    together, losses = improve(RATES, jax.random.key(2), learner, batch)
    _, improve_one = make_parts(1)
    for j in range(K):
        params, opt_state, lone_batch = (
            jax.tree.map(lambda x, j=j: x[j][None], tree) for tree in (learner.params.own, learner.opt_state.own, batch)
        )
        lone = Learner(learner.params._replace(own=params), learner.opt_state._replace(own=opt_state))
        alone, alone_losses = improve_one(RATES, jax.random.key(2), lone, lone_batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), all_of(alone, 0), all_of(together, j))
        np.testing.assert_allclose(alone_losses.loss[0], losses.loss[j], atol=1e-5)


def values_of(learner, j, obs):
    """Logits (B, 2) and values (B, 1) of policy j."""
    networks = make_model(SPEC, SIZES, K, K).networks
    params = learner.params._replace(own=policy(learner.params.own, j))
    return networks.actor(params, obs), networks.critic(params, jnp.int32(j), obs)


def test_every_epoch_sees_every_row_once(two, batch):
    learner, improve = two
    assert updates_of(improve(RATES, jax.random.key(2), learner, batch)[0]) == [EPOCHS * MINIBATCHES] * K
    still = Rates(max_kl=1e6, max_gradient_norm=1e-30, adam_epsilon=1.0)  # no step, so means over minibatches are over rows
    after, losses = improve(still, jax.random.key(2), learner, batch)
    for j in range(K):
        error = values_of(learner, j, batch.obs[j])[1] - batch.target[j]
        np.testing.assert_allclose(losses.value_loss[j], 0.5 * jnp.square(error).mean(), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), after.params, learner.params)


def test_a_policy_stops_by_its_own_kl(two, batch):
    learner, improve = two
    logits = jnp.stack([values_of(learner, j, batch.obs[j])[0] for j in range(K)])
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.action[..., None], -1)[..., 0]
    seen = batch._replace(log_prob=log_prob)  # no divergence at the first minibatch
    parted = seen._replace(log_prob=seen.log_prob.at[1].add(-3.0))  # policy 1 is far from what acted
    rates = Rates(max_kl=0.5)
    assert updates_of(improve(rates, jax.random.key(2), learner, seen)[0]) == [EPOCHS * MINIBATCHES] * K
    stopped, _ = improve(rates, jax.random.key(2), learner, parted)
    assert updates_of(stopped) == [EPOCHS * MINIBATCHES, 1]
    free, _ = improve(rates, jax.random.key(2), learner, seen)
    jax.tree.map(np.testing.assert_array_equal, all_of(stopped, 0), all_of(free, 0))


def test_a_policy_that_stopped_keeps_its_place_and_its_moments_bit_for_bit(two, batch):
    learner, improve = two
    once, _ = improve(RATES, jax.random.key(2), learner, batch)
    params, state = all_of(once, 0)
    gradient = jax.tree.map(jnp.ones_like, params)
    kept, moved = (
        _apply_update(RATES, jnp.float32(0.1), jnp.bool_(active), params, gradient, state) for active in (False, True)
    )
    jax.tree.map(np.testing.assert_array_equal, kept, (params, state))
    assert changed(moved[0], params)
    assert int(_count(moved[1])) == int(_count(state)) + 1


def test_a_shared_trunk_goes_on_until_all_policies_have_stopped(batch):
    learner, improve = make_parts(K, trunk="shared")
    stopped, _ = improve(Rates(max_kl=1e-9), jax.random.key(2), learner, batch)
    assert updates_of(stopped) == [1, 1]
    assert int(_count(stopped.opt_state.shared)) == 1
    one, _ = improve(Rates(max_kl=1e6), jax.random.key(2), learner, batch)
    assert int(_count(one.opt_state.shared)) == EPOCHS * MINIBATCHES
    assert changed(one.params.shared, stopped.params.shared)
