"""Each probe is learned to its known value, by every kind of critic and trunk; all five by the same compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import DISCOUNT, PROBES, make_probe, probe_config

from rmdp_jax import end_to_end, make_trainer, plain_em
from rmdp_jax.policies.model import make_model

K, N, ITERATIONS, WARMUP = 2, 4, 300, 30
KINDS = [
    ("mixed", "separate"),
    ("per_agent", "separate"),
    pytest.param(("mixed", "shared"), marks=pytest.mark.slow),
    pytest.param(("per_agent", "shared"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def kind(request):
    """The critic's kind, `learn(probe, key) -> state, info`, and `values(state, j, observations) -> (B, c)`."""
    critic, trunk = request.param
    config = probe_config(K, N, ITERATIONS, critic=critic, trunk=trunk)

    def learn(probe, key):
        env, population = make_probe(probe, N)
        warmup = jnp.where(jnp.asarray(probe.acts), WARMUP, 10 * ITERATIONS)  # where nothing is better, noise moves agents
        trainer = make_trainer(env, population, config, plain_em(K, N, warmup=warmup))
        infos = jax.eval_shape(trainer.step, jax.eval_shape(trainer.init, key))[1]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), infos)
        return jax.lax.fori_loop(0, ITERATIONS, lambda _, now: trainer.step(now[0]), (trainer.init(key), nothing))

    model = make_model(make_probe(PROBES["constant"], N)[0].spec, config.sizes, K, N)

    def values(state, j, observations):
        params = state.learner.params
        own = jax.tree.map(lambda x: x[j], params.own)
        obs = jnp.array(observations, jnp.float32)[:, None]
        scale = model.returns.scale(jax.tree.map(lambda x: x[j], state.returns))  # critics learn returns of size 1
        return np.asarray(scale * model.networks.critic(params._replace(own=own), jnp.int32(j), obs))

    return critic, jax.jit(learn), values


def known(critic, own, value_of_agents):
    """Values (B, N) of all agents to what the critic of a policy with agents `own` says, (B, c)."""
    return value_of_agents if critic == "per_agent" else value_of_agents[:, own].mean(1, keepdims=True)


SCALES = np.arange(1.0, N + 1)
VALUES = {
    "constant": ([0.0], SCALES[None]),
    "observation": ([-1.0, 1.0], np.stack([-SCALES, SCALES])),
    "discount": ([0.0, 1.0], np.stack([DISCOUNT * SCALES, SCALES])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_values_are_learned(kind, name):
    critic, learn, values = kind
    state, info = learn(PROBES[name], jax.random.key(0))
    np.testing.assert_array_equal(info.assignment, [0, 1, 0, 1])
    observations, value_of_agents = VALUES[name]
    for j in range(K):
        expected = known(critic, info.assignment == j, value_of_agents)
        np.testing.assert_allclose(values(state, j, observations), expected, atol=0.1)


@pytest.mark.parametrize("name", ["action", "both"])
def test_agents_find_the_policy_that_grants_their_wish(kind, name):
    critic, learn, values = kind
    state, info = learn(PROBES[name], jax.random.key(1))
    labels = np.asarray(info.assignment)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    own = labels[None] == np.arange(K)[:, None]
    np.testing.assert_allclose(info.utility, 100.0 * own, atol=2.0)  # welfare of 100 is the optimum
    assert float(info.welfare) == pytest.approx(100.0, abs=2.0)
    observations = {"action": [0.0], "both": [-1.0, 1.0]}[name]
    for j in range(K):
        expected = known(critic, own[j], np.repeat(own[j][None].astype(float), len(observations), 0))
        np.testing.assert_allclose(values(state, j, observations), expected, atol=0.1)


def end_to_end_infos(gradient, seeds):
    """The last `Info` of several seeds on the probe where agents have wishes, leaves (seeds, ...)."""
    task, config = make_probe(PROBES["action"], N), probe_config(K, N, ITERATIONS, critic="per_agent")
    trainer = make_trainer(*task, config, end_to_end(K, N, gradient=gradient))

    def learn(key):
        first = trainer.step(trainer.init(key))
        return jax.lax.fori_loop(0, ITERATIONS, lambda _, now: trainer.step(now[0]), first)[1]

    return jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), seeds))


@pytest.mark.slow
def test_end_to_end_finds_the_partition_in_most_seeds():
    """A soft start hides who wants what: every policy begins with a mixture of both wishes."""
    info = end_to_end_infos("exact", seeds=16)
    assert (np.asarray(info.welfare) > 90.0).mean() >= 0.75  # one policy for everybody serves 50


@pytest.mark.slow
def test_surrogate_survives_policies_that_have_learned_all():
    """Without any spread in the advantages there is nothing to learn, and nothing may turn into NaN."""
    info = end_to_end_infos("surrogate", seeds=4)
    assert np.isfinite(info.softness).all()
    assert set(np.asarray(info.assignment).flatten().tolist()) == {0, 1}
