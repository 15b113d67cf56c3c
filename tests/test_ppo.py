import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import EnvSpec, Rates, Sizes
from rmdp_jax.learning.ppo import Batch, ppo_loss
from rmdp_jax.policies.critics import CRITICS
from rmdp_jax.policies.model import Model
from rmdp_jax.policies.networks import Networks, Params, make_distribution, make_networks

SPEC = EnvSpec("none", 1, 2, True, 1, 0.9, 1.0, "jax")
CATEGORICAL = make_distribution(SPEC)
GAUSSIAN = make_distribution(SPEC._replace(discrete=False))
RATES = Rates(clip=0.2, value_weight=0.5)
ENTROPY = 0.1
# One policy that says the same to every observation: logits and values are its parameters.
NETWORKS = Networks(
    init_shared=lambda key: {},
    init_own=lambda key: {},
    actor=lambda params, obs: jnp.broadcast_to(params.own["logits"], (*obs.shape[:-1], 2)),
    critic=lambda params, index, obs: jnp.broadcast_to(params.own["value"], (*obs.shape[:-1], *params.own["value"].shape)),
)


def loss_of(params, weights, batch, critic="mixed"):
    model = Model(NETWORKS, CATEGORICAL, None, None, CRITICS[critic])
    return ppo_loss(model, RATES, ENTROPY, params, weights, jnp.int32(0), batch)


@pytest.fixture
def params():
    return Params({}, {"logits": jnp.zeros(2), "value": jnp.array([2.0])})


@pytest.fixture
def batch():
    """Four transitions whose ratios are 1.5 1.5 0.5 0.5 under even odds, so that the clip at 0.2 acts on both sides."""
    ratio = jnp.array([1.5, 1.5, 0.5, 0.5])
    return Batch(
        obs=jnp.zeros((4, 1)),
        action=jnp.zeros(4, jnp.int32),
        log_prob=jnp.log(0.5 / ratio),
        advantage=jnp.array([[1.0], [-1.0], [1.0], [-1.0]]),  # mean 0, deviation 1
        target=jnp.array([[0.0], [1.0], [2.0], [4.0]]),
    )


def test_loss_by_hand(params, batch):
    loss, parts = loss_of(params, jnp.ones(1), batch)
    policy_loss = -(1.2 - 1.5 + 0.5 - 0.8) / 4  # clipped, not, not, clipped
    value_loss = 0.5 * (4 + 1 + 0 + 4) / 4
    entropy = np.log(2)
    kl = (2 * (0.5 - np.log(1.5)) + 2 * (-0.5 - np.log(0.5))) / 4  # mean of ratio - 1 - log ratio
    np.testing.assert_allclose(parts.policy_loss, policy_loss, atol=1e-6)
    np.testing.assert_allclose(parts.value_loss, value_loss, atol=1e-6)
    np.testing.assert_allclose(parts.entropy, entropy, atol=1e-6)
    np.testing.assert_allclose(parts.kl, kl, atol=1e-6)
    np.testing.assert_allclose(loss, policy_loss + 0.5 * value_loss - 0.1 * entropy, atol=1e-6)
    assert parts.loss == loss


def test_gradient_by_hand(params, batch):
    gradient = jax.grad(lambda params: loss_of(params, jnp.ones(1), batch)[0])(params).own
    # Only the two that are not clipped pull; d ratio / d logits = ratio * ([1, 0] - 1/2). At even odds entropy does not pull.
    pull = -(-1 * 1.5 + 1 * 0.5) * 0.5 / 4
    np.testing.assert_allclose(gradient["logits"], [pull, -pull], atol=1e-6)
    np.testing.assert_allclose(gradient["value"], [0.5 * (2 + 1 + 0 - 2) / 4], atol=1e-6)


def test_advantages_are_mixed_over_columns_and_then_standardised(params, batch):
    columns = jnp.array([[9.0, 1.0], [-3.0, 5.0], [9.0, 1.0], [-3.0, 5.0]])
    two = Params({}, {"logits": jnp.zeros(2), "value": jnp.array([2.0, 2.0])})
    target = jnp.concatenate([batch.target, batch.target], 1)
    weights = jnp.array([0.5, 0.5])  # mixed: 5 1 5 1
    mixed = loss_of(two, weights, batch._replace(advantage=columns, target=target), "per_agent")[1]
    np.testing.assert_allclose(mixed.policy_loss, loss_of(params, jnp.ones(1), batch)[1].policy_loss, atol=1e-6)
    np.testing.assert_allclose(mixed.value_loss, 0.5 * 9 / 4, atol=1e-6)  # a mean over columns


def test_gradients_reach_the_weights(params, batch):
    two = Params({}, {"logits": jnp.zeros(2), "value": jnp.array([2.0, 2.0])})
    batch = batch._replace(advantage=jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]))
    batch = batch._replace(target=jnp.zeros((4, 2)))

    def loss(weights):
        return loss_of(two, weights, batch, "per_agent")[0]

    weights, step = jnp.array([0.4, 0.6]), jnp.array([1e-2, 0.0])
    slope = (loss(weights + step) - loss(weights - step)) / 2e-2
    assert abs(slope) > 0.05
    np.testing.assert_allclose(jax.grad(loss)(weights)[0], slope, rtol=1e-2)


def test_equal_advantages_do_not_blow_up(params, batch):
    flat = batch._replace(advantage=jnp.full((4, 1), 7.0))
    gradient = jax.grad(lambda params: loss_of(params, jnp.ones(1), flat)[0])(params).own
    np.testing.assert_allclose(gradient["logits"], [0.0, 0.0], atol=1e-6)


def test_categorical_by_hand():
    logits = jnp.log(jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(CATEGORICAL.log_prob(logits, jnp.array([0])), [np.log(0.25)], rtol=1e-6)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(CATEGORICAL.entropy(logits), [entropy], rtol=1e-6)
    assert CATEGORICAL.mode(logits).tolist() == [1]
    drawn = CATEGORICAL.sample(logits, CATEGORICAL.noise(jax.random.key(0), (20_000, 2)))
    assert drawn.dtype == jnp.int32
    assert float(drawn.mean(dtype=jnp.float32)) == pytest.approx(0.75, abs=0.01)


def test_gaussian_by_hand():
    parameters = jnp.array([[1.0, -1.0]]), jnp.log(jnp.array([[0.5, 2.0]]))
    action = jnp.array([[1.5, -1.0]])  # one deviation off, and on the mean
    expected = -0.5 - np.log(0.5) - np.log(2.0) - np.log(2 * np.pi)
    np.testing.assert_allclose(GAUSSIAN.log_prob(parameters, action), [expected], rtol=1e-6)
    np.testing.assert_allclose(GAUSSIAN.entropy(parameters), [np.log(0.5 * 2.0) + np.log(2 * np.pi * np.e)], rtol=1e-6)
    np.testing.assert_array_equal(GAUSSIAN.mode(parameters), [[1.0, -1.0]])
    drawn = GAUSSIAN.sample(parameters, GAUSSIAN.noise(jax.random.key(0), (20_000, 2)))
    np.testing.assert_allclose(drawn.mean(0), [1.0, -1.0], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), [0.5, 2.0], rtol=0.02)


@pytest.mark.parametrize("std", ["learned", "fixed"])
def test_actions_vary_at_first_as_they_are_told_to(std):
    spec = EnvSpec("push", 3, 2, False, 5, 0.9, 1.0, "jax")
    networks = make_networks(spec, Sizes(std=std, log_std_init=-0.5), k=1, columns=1)
    params = Params(networks.init_shared(jax.random.key(0)), networks.init_own(jax.random.key(1)))
    _, log_std = networks.actor(params, jnp.ones((4, 3)))
    np.testing.assert_array_equal(log_std, np.full((4, 2), -0.5, np.float32))
    assert len(jax.tree.leaves(params.own["head"])) == (3 if std == "learned" else 2)
