"""Estimates for very many agents are without bias, have the error that `scoring` says, and leave few agents as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config
from tiny import assert_same

from rmdp_jax import ConfigError, Sizes, Step, TrainConfig, em, make_trainer, plain_em
from rmdp_jax.envs import make
from rmdp_jax.envs.speed import BODIES, Outcome, make_population
from rmdp_jax.learning.scoring import BLOCK, sample_by_weight, score_all, score_sample, stratified_indices, total_rewards
from rmdp_jax.policies.critics import CRITICS

T, E, N, DRAWS = 16, 8, 40, 2000
SIGMAS = 5.0  # of the mean over DRAWS draws; N or T E numbers are looked at, so one in 10^4 tests would fail by chance


@pytest.fixture(scope="module")
def population():
    return make_population(BODIES["halfcheetah"], N, 0)


@pytest.fixture(scope="module")
def stepped():
    """Steps (T, E) of a policy that speeds up, one in ten broken."""
    rng = np.random.default_rng(1)
    speed = np.linspace(0.5, 2.5, T)[:, None] + rng.normal(0, 0.3, (T, E))
    diverged = jnp.asarray(rng.random((T, E)) < 0.1)
    no = jnp.zeros((T, E), bool)
    return Step(jnp.zeros((T, E, 1)), Outcome(jnp.asarray(speed, jnp.float32)), no, no, diverged)


def unroll(scorer, stepped):
    """Columns (T, E, c) and sums of rewards (n,) of a scorer, as `rollout` asks it for them."""

    def score(carry, stepped):
        carry, columns, _, kept = scorer.score(carry, stepped)
        return carry, (columns, kept)

    carry, (columns, kept) = jax.lax.scan(score, scorer.init, stepped)
    return columns, scorer.total(carry, kept).rewards


@pytest.mark.parametrize("weights", [np.arange(N) % 3 == 0, np.linspace(0.1, 2.0, N)], ids=["hard", "soft"])
def test_estimates_are_without_bias_and_their_error_is_as_told(population, stepped, weights):
    weights = jnp.asarray(weights, jnp.float32)
    steps = 24  # of 128, no divisor
    exact_columns, exact = unroll(score_all(population, lambda r: CRITICS["mixed"].columns(r, weights)), stepped)
    draw = jax.vmap(lambda key: unroll(score_sample(key, population, weights, 8, steps), stepped))
    columns, sums = (np.asarray(x, np.float64) for x in jax.jit(draw)(jax.random.split(jax.random.key(0), DRAWS)))
    for drawn, truth in ((columns, exact_columns), (sums, exact)):
        error = drawn.std(0) / DRAWS**0.5
        assert (np.abs(drawn.mean(0) - truth) <= SIGMAS * error + 1e-6).all()
    rewards = np.asarray(jax.vmap(jax.vmap(population.rewards))(stepped)).reshape(T * E, N)
    assert (sums.var(0) <= 1.1 * (T * E) ** 2 / steps * rewards.var(0)).all()  # steps of one stratum are alike
    group = np.average((rewards - np.average(rewards, 1, weights)[:, None]) ** 2, 1, weights)
    assert (columns.var(0)[..., 0].ravel() <= 1.1 * group / 8 + 1e-9).all()


def test_all_steps_give_the_exact_sums(population, stepped):
    weights = jnp.ones(N)
    _, exact = unroll(score_all(population, lambda rewards: rewards), stepped)
    _, sums = unroll(score_sample(jax.random.key(0), population, weights, 8, 10**6), stepped)
    np.testing.assert_allclose(sums, exact, rtol=1e-5)


@pytest.mark.parametrize(("total", "number"), [(128, 24), (7, 3), (5, 5), (100_000, 60_000)])
def test_every_step_is_drawn_equally_often(total, number):
    drawn = np.asarray(stratified_indices(jax.random.key(0), total, number))
    assert (np.diff(drawn) >= 0).all()
    assert ((drawn >= np.arange(number) * total // number) & (drawn <= -(-np.arange(1, number + 1) * total // number))).all()
    assert drawn.max() < total
    if total < 1000:
        keys = jax.random.split(jax.random.key(1), 4000)
        counts = np.bincount(
            np.asarray(jax.vmap(lambda key: stratified_indices(key, total, number))(keys)).ravel(), minlength=total
        )
        np.testing.assert_allclose(counts / 4000, number / total, atol=SIGMAS / 4000**0.5)


def test_agents_are_drawn_by_their_weights_and_never_without():
    weights = jnp.array([0.0, 3.0, 0.0, 1.0, 0.0], jnp.float32)
    drawn = np.asarray(jax.vmap(lambda key: sample_by_weight(key, weights, 2))(jax.random.split(jax.random.key(0), 4000)))
    assert set(drawn.ravel()) == {1, 3}
    assert (drawn == 1).mean() == pytest.approx(0.75, abs=SIGMAS / 8000**0.5)
    many = jnp.zeros(10**6).at[::2].set(1.0)
    assert (np.asarray(sample_by_weight(jax.random.key(1), many, 1024)) % 2 == 0).all()


def test_blocks_of_agents_are_scored_as_each_alone():
    population = make_population(BODIES["ant"], 2 * BLOCK + 3, 0)
    steps = Step((), Outcome(jnp.array([0.5, 1.5, 1.6])), (), (), jnp.array([False, False, True]))
    total = np.asarray(total_rewards(population, steps).rewards)
    rewards = np.asarray(jax.vmap(population.rewards)(steps))
    np.testing.assert_allclose(total, rewards.sum(0), rtol=1e-6, atol=1e-8)


def test_nothing_of_size_E_n_is_built():
    env, population = make("resource_gathering", size=2, n=400)
    config = probe_config(2, 400, 10, agents_exact=16, utility_steps=4, environments=11, unroll=3, minibatches=1)
    trainer = make_trainer(env, population, config, plain_em(2, 400))
    text = jax.jit(trainer.step).lower(trainer.init(jax.random.key(0))).compile().as_text()
    assert "f32[2,400]" in text
    assert "11,400" not in text
    assert "400,11" not in text


def test_few_agents_are_scored_as_before(monkeypatch):
    """Two limits that are not reached make one program; a sample is not even drawn."""
    env, population = make_probe(PROBES["both"], 6)
    monkeypatch.setattr("rmdp_jax.learning.experience.score_sample", None)
    states = []
    for limit, steps in ((6, 1), (4096, 64)):
        config = probe_config(2, 6, 4, agents_exact=limit, utility_steps=steps)
        trainer = make_trainer(env, population, config, plain_em(2, 6, warmup=1))
        states.append(jax.jit(trainer.step)(trainer.init(jax.random.key(0)))[0])
    assert_same(*states)


@pytest.mark.parametrize("algorithm", ["plain_em", pytest.param("em", marks=pytest.mark.slow)])
def test_estimates_lead_to_the_same_welfare(algorithm, monkeypatch):
    """200 agents of two wishes, 16 of whom are drawn: both policies find their wish, as with all agents."""
    monkeypatch.setattr("rmdp_jax.learning.segments.LARGEST_UNSAMPLED", 50)
    monkeypatch.setattr("rmdp_jax.learning.segments.SAMPLE_SIZE", 20)
    n = 200
    env, population = make_probe(PROBES["action"], n)
    config = probe_config(2, n, 120, agents_exact=16, utility_steps=8)
    assigner = {"plain_em": lambda: plain_em(2, n, warmup=10), "em": lambda: em(2, n, anneal=10, starts=1)}[algorithm]()
    trainer = make_trainer(env, population, config, assigner)
    state, info = jax.jit(lambda s: jax.lax.scan(lambda s, _: trainer.step(s), s, None, 120))(trainer.init(jax.random.key(0)))
    assert info.welfare[-1] > 97
    assert sorted(info.policy_sizes[-1].tolist()) == [100, 100]
    if algorithm == "em":
        assert state.segments.returns.shape == (2, 32, 20)
        assert state.assignment.returns.shape == (16 + 2, 32, 20)


@pytest.mark.slow
def test_two_seeds_together_are_estimated_as_each_alone():
    env, population = make_probe(PROBES["action"], 30)
    config = probe_config(2, 30, 10, agents_exact=8, utility_steps=8, epochs=1)
    trainer = make_trainer(env, population, config, plain_em(2, 30, warmup=2))
    run = jax.jit(lambda key: jax.lax.scan(lambda s, _: trainer.step(s), trainer.init(key), None, 4)[1])
    keys = jax.random.split(jax.random.key(0), 2)
    together, alone = jax.vmap(run)(jax.random.clone(keys)), run(keys[1])
    assert (together.utility[0] != together.utility[1]).any()
    np.testing.assert_allclose(together.utility[1], alone.utility, rtol=1e-5)
    np.testing.assert_array_equal(together.assignment[1], alone.assignment)


def test_values_of_every_agent_are_refused_for_many():
    with pytest.raises(ConfigError, match=r"critic = 'per_agent': must be 'mixed' above agents_exact = 8 agents \(n = 9\)"):
        TrainConfig(n=9, sizes=Sizes(critic="per_agent", agents_exact=8))
    TrainConfig(n=8, sizes=Sizes(critic="per_agent", agents_exact=8))
    with pytest.raises(ConfigError, match="utility_steps = 0"):
        Sizes(utility_steps=0)
