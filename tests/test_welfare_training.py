"""Training on other terms than the mean: who counts how much, and that it is reported, kept and checked."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, make_trainer, plain_em, train
from rmdp_jax.envs import make
from rmdp_jax.evaluation.episodes import score_episodes
from rmdp_jax.evaluation.evaluate import make_evaluate
from rmdp_jax.records.loading import load_run
from rmdp_jax.trainer import policies_of
from tests.probes import PROBES, make_probe, probe_config
from tests.tiny import CONFIG, K, N, make_tiny

WEIGHTS = jnp.array([1.0, 2.0, 3.0, 4.0])


def share_of_first_wish(p, weights=None):
    """How often one policy grants wish 0 to two agents who wish for opposites, after 200 iterations."""
    env, population = make_probe(PROBES["action"], 2)
    population = population._replace(weights=None if weights is None else jnp.array(weights, jnp.float32))
    config = replace(probe_config(1, 2, 200, environments=32), welfare_p=p)
    # what counts follows what is done at once, and what is done moves slowly, or it would swing around the balance
    config = replace(config, rates=replace(config.rates, utility_decay=0.5, learning_rate=(3e-3, 1e-4)))
    trainer = make_trainer(env, population, config, plain_em(1, 2))
    state = jax.jit(trainer.init)(jax.random.key(0))
    state = jax.lax.fori_loop(0, config.iterations, lambda _, state: jax.jit(trainer.step)(state)[0], state)
    evaluation = make_evaluate(env, population, config, episodes=4000)
    return float(jax.jit(evaluation)(policies_of(state), jnp.zeros(2, jnp.int32), jax.random.key(1)).utility[0, 0]) / 100


@pytest.mark.slow
def test_on_nash_terms_one_policy_shares_its_time_between_opposites():
    # s^a (1 - s)^b is greatest at s = a / (a + b); the mean is as great at every s, so nothing holds it there
    assert share_of_first_wish(0.0) == pytest.approx(0.5, abs=0.1)
    assert share_of_first_wish(0.0, (3.0, 1.0)) == pytest.approx(0.75, abs=0.1)


@pytest.mark.slow
def test_by_weight_the_heavier_agent_has_the_policy():
    assert share_of_first_wish(1.0, (3.0, 1.0)) > 0.95
    assert share_of_first_wish(1.0, (1.0, 3.0)) < 0.05


@pytest.mark.parametrize(("p", "weights"), [(0.0, None), (-np.inf, None), (-2.0, WEIGHTS), (1.0, WEIGHTS)])
def test_evaluated_welfare_is_the_p_mean_of_the_returns_that_are_told(p, weights):
    env, population = make_tiny()
    population = population._replace(weights=weights)
    config = replace(CONFIG, welfare_p=p)
    trainer = make_trainer(env, population, config, plain_em(K, N))
    policies, labels = policies_of(trainer.init(jax.random.key(0))), jnp.array([0, 1, 1, 0])
    found = jax.jit(make_evaluate(env, population, config, episodes=16, keep=3))(policies, labels, jax.random.key(1))
    own, share = np.asarray(found.utility)[labels, np.arange(N)] / 100, np.ones(N) if weights is None else np.asarray(weights)
    share = share / share.sum()
    expected = own.min() if p == -np.inf else np.exp(share @ np.log(own)) if p == 0 else (share @ own**p) ** (1 / p)
    assert float(found.welfare) == pytest.approx(100 * expected, rel=1e-4)
    assert found.episodes.number == 3
    plain = jax.jit(make_evaluate(env, population._replace(weights=None), CONFIG, episodes=16))(
        policies, labels, jax.random.key(1)
    )
    np.testing.assert_array_equal(found.utility, plain.utility)


def test_the_standard_error_by_weight_is_that_of_weighted_returns_in_each_episode():
    env, population = make_tiny()
    population = population._replace(weights=WEIGHTS)
    policies = policies_of(make_trainer(env, population, CONFIG, plain_em(K, N)).init(jax.random.key(0)))
    labels = jnp.array([0, 1, 1, 0])
    found = jax.jit(make_evaluate(env, population, CONFIG, episodes=16, keep=16))(policies, labels, jax.random.key(1))
    returns = np.asarray(score_episodes(population, found.episodes, population.agents))[np.asarray(labels), :, np.arange(N)]
    by_episode = 100 * np.asarray(WEIGHTS) @ returns / 10  # (16,)
    assert float(found.welfare) == pytest.approx(by_episode.mean(), rel=1e-4)
    assert float(found.standard_error) == pytest.approx(by_episode.std(ddof=1) / 4, rel=1e-3)


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, -np.inf])
def test_the_standard_error_is_known_where_somebody_gets_nothing(p):
    env, population = make_tiny()
    pays = population.reward
    population = population._replace(
        agents={"own": population.agents, "paid": jnp.array([0.0, 1.0, 1.0, 1.0])},
        reward=lambda agent, outcome: agent["paid"] * pays(agent["own"], outcome),
    )
    config = replace(CONFIG, welfare_p=p)
    policies = policies_of(make_trainer(env, population, config, plain_em(K, N)).init(jax.random.key(0)))
    labels = jnp.array([0, 1, 1, 0])
    found = jax.jit(make_evaluate(env, population, config, episodes=16))(policies, labels, jax.random.key(1))
    if p <= 0:
        assert (float(found.welfare), float(found.standard_error)) == (0.0, 0.0)
    else:
        assert 0 < float(found.standard_error) < float(found.welfare)


def test_a_run_on_other_terms_says_so_and_keeps_them(tmp_path):
    env, population = make_tiny()
    weighted, config = population._replace(weights=WEIGHTS), replace(CONFIG, welfare_p=-np.inf)
    result = train(env, weighted, config, plain_em(K, N), out=tmp_path / "run", progress=False)
    assert result.summary["welfare_p"] == "-inf"
    assert result.summary["upper_bound"] is None, "it is of the mean of all alike"
    run = load_run(tmp_path / "run", make)
    assert run.config.welfare_p == -np.inf
    np.testing.assert_array_equal(run.population.weights, WEIGHTS)
    assert result.summary["welfare"] == pytest.approx(result.metrics[-1]["welfare"], abs=30)
    for other, message in (
        (population, "weights: are there"),
        (population._replace(weights=2 * WEIGHTS), "weights: 4 of 4 agents are others"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(env, other, config, plain_em(K, N), out=tmp_path / "run", resume=True, progress=False)
    with pytest.raises(ConfigError, match="welfare_p"):
        train(env, weighted, CONFIG, plain_em(K, N), out=tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (jnp.ones(3), r"weights are float32 \(3,\), must be float32 \(4,\)"),
        (jnp.array([1, 2, 3, 4]), "weights are int32"),
        ([1.0, 2.0, 3.0, 4.0], "weights are list"),
        (jnp.array([1.0, 0.0, 1.0, 1.0]), "weight of agent 1 is 0, must be a finite number above 0"),
        (jnp.array([1.0, 1.0, jnp.nan, 1.0]), "weight of agent 2 is nan"),
        (jnp.array([1.0, 1.0, 1.0, jnp.inf]), "weight of agent 3 is inf"),
    ],
)
def test_bad_weights_are_told(weights, message):
    env, population = make_tiny()
    with pytest.raises(ConfigError, match=message):
        make_trainer(env, population._replace(weights=weights), CONFIG, plain_em(K, N))


@pytest.mark.parametrize("p", [1.5, np.nan, np.inf, "nash", None])
def test_bad_p_is_told(p):
    with pytest.raises(ConfigError, match="welfare_p"):
        replace(CONFIG, welfare_p=p)
