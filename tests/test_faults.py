"""What breaks in an env, a reward or a policy is said, counted, and changes nobody else's learning."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same, leaves

from rmdp_jax import (
    Env,
    EnvSpec,
    Population,
    Rates,
    Sizes,
    Step,
    TrainConfig,
    TrainingError,
    end_to_end,
    fixed,
    make_trainer,
    plain_em,
    train,
)
from rmdp_jax.env import auto_reset, first_episodes, guard, make_starts
from rmdp_jax.learning.experience import fresh_starts
from rmdp_jax.policies.returns import DECAY, running_scale
from rmdp_jax.records.files import RunWarning
from rmdp_jax.running.faults import FaultWatch

K, N = 2, 4
GOALS = jnp.linspace(0.0, 1.0, N)
SIZES = Sizes(environments=4, unroll=8, epochs=2, minibatches=2, hidden=(8,))
CONFIG = TrainConfig(k=K, n=N, transitions=6 * SIZES.transitions, log_every=2, evaluation_episodes=4, sizes=SIZES)


def line_walk(first=lambda x: x, seen=lambda x: x, outcome=lambda x: x[0], episode_length=8):
    """A point in the plane that steps 0.1 to the right or left; hooks spoil what reset or step report."""
    spec = EnvSpec("line_walk", 2, 2, True, episode_length, 0.9, 1.0, "jax", observation_limit=1e3)

    def reset(key):
        x = jax.random.uniform(key, (2,))
        return (x, jnp.int32(0)), first(x)

    def step(state, action):
        x, clock = state
        x = x.at[0].add(jnp.where(action == 1, 0.1, -0.1))
        return (x, clock + 1), Step(seen(x), outcome(x), jnp.bool_(False), clock + 1 >= episode_length)

    return Env(spec, reset, step)


def near(goal, x):
    return 1.0 - jnp.abs(x - goal)


def spoiled(agent, how):
    """`near`, but where `how(x)` holds the reward of this agent is not a number."""
    return lambda goal, x: jnp.where((goal == GOALS[agent]) & how(x), jnp.nan, near(goal, x))


def silenced(agent, how):
    return lambda goal, x: jnp.where((goal == GOALS[agent]) & how(x), 0.0, near(goal, x))


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in leaves(tree))


def run(env, reward=near, **options):
    return train(env, Population(GOALS, reward), CONFIG, plain_em(K, N), progress=False, **options)


@pytest.fixture(scope="module")
def plain():
    return run(line_walk())


def test_a_reward_that_is_no_number_counts_as_zero_for_its_agent_alone():
    with pytest.warns(RunWarning, match=r"the reward of agent 2 was not finite in \d+ steps .* up to iteration 2") as heard:
        bad = run(line_walk(), spoiled(2, lambda x: x > 0.9))
    assert len([1 for warning in heard if "not finite" in str(warning.message)]) == 1, "it is said once"
    good = run(line_walk(), silenced(2, lambda x: x > 0.9))
    assert_same(bad.state, good.state)  # learning, utilities and assignment of everybody, bit for bit
    assert finite(bad.policies)
    assert bad.summary["welfare"] == good.summary["welfare"] is not None
    counts = [line.get("nonfinite_rewards_by_agent", {}) for line in bad.metrics]
    assert set().union(*counts) == {"2"}
    assert bad.summary["nonfinite_rewards"] == sum(line["nonfinite_rewards"] for line in bad.metrics) > 0
    assert good.summary["nonfinite_rewards"] == 0


@pytest.mark.slow
def test_rewards_of_very_many_agents_are_looked_at_too():
    config = replace(CONFIG, sizes=replace(SIZES, agents_exact=2, utility_steps=16))
    with pytest.warns(RunWarning, match="the reward of agent 2 was not finite"):
        result = train(line_walk(), Population(GOALS, spoiled(2, lambda x: x > 0.7)), config, plain_em(K, N), progress=False)
    assert finite(result.state)
    assert result.summary["nonfinite_rewards"] > 0


def test_a_reward_that_is_hardly_ever_a_number_ends_training(tmp_path):
    with pytest.raises(TrainingError, match=r"the reward of agent 1 .* \(max_fault_share = 0.5\)"):
        run(line_walk(), spoiled(1, lambda x: x > -9.0), out=tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()), "what was learned is saved"
    assert (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_of_several_runs_the_faulty_one_is_named():
    with pytest.raises(TrainingError, match=r"^seed 0: the reward of agent 1 "):
        run(line_walk(), spoiled(1, lambda x: x > -9.0), seeds=2)


def test_a_start_that_is_no_number_ends_its_episode():
    with pytest.warns(RunWarning, match="of the steps diverged"):
        result = run(line_walk(first=lambda x: jnp.where(x[1] > 0.8, jnp.nan, x)))
    assert finite((result.policies, result.state))
    assert sum(result.summary["diverged"]) > 0


@pytest.mark.parametrize(
    "broken",
    [
        {"first": lambda x: jnp.nan * x},
        {"seen": lambda x: 2e3 + x},
        {"outcome": lambda x: x[0] / 0.0},
    ],
    ids=["first observation", "observation beyond the limit", "outcome"],
)
def test_steps_that_all_break_end_training_at_the_first_line(broken):
    with pytest.raises(TrainingError, match=r"100% of the steps diverged up to iteration 2: .*1000 or more; mend the env"):
        run(line_walk(**broken))


def test_a_policy_that_is_not_finite_is_put_back_and_the_others_do_not_notice():
    trainer = make_trainer(line_walk(), Population(GOALS, near), CONFIG, fixed(K, N, np.arange(N) % K))
    step = jax.jit(trainer.step)
    good = step(jax.jit(trainer.init)(jax.random.key(0)))[0]
    moments = good.learner.opt_state
    spoiled = jax.tree.map(lambda x: x.at[0].set(jnp.inf) if x.dtype == jnp.float32 else x, moments.own)
    bad = good._replace(learner=good.learner._replace(opt_state=moments._replace(own=spoiled)))
    after, info = step(bad)
    expected, _ = step(good)
    assert info.recovered.tolist() == [1, 0]
    own, alone = ((state.learner.params.own, state.learner.opt_state.own, state.statistics) for state in (after, expected))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), own, alone)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), own[0], good.learner.params.own)
    assert all((leaf[0] == 0).all() for leaf in leaves(own[1])), "with a fresh optimiser"


def test_parameters_that_explode_are_put_back():
    config = replace(CONFIG, rates=Rates(learning_rate=(1e38, 1e38), max_kl=1e30))
    with pytest.warns(RunWarning, match="policy 0 was not finite and was put back"):
        result = train(line_walk(), Population(GOALS, near), config, plain_em(K, N), progress=False)
    assert finite(result.policies)
    assert min(result.summary["recovered"]) > 0


@pytest.mark.parametrize("size", [2.0**-20, 1e6])
def test_rewards_of_any_scale_are_learned_from_alike(size, plain):
    scaled = run(line_walk(), lambda goal, x: jnp.float32(size) * near(goal, x))
    np.testing.assert_allclose(float(scaled.evaluation.welfare) / size, float(plain.evaluation.welfare), rtol=0.01)
    np.testing.assert_allclose(scaled.summary["welfare"] / size, plain.summary["welfare"], rtol=0.01)
    if np.log2(size) % 1 == 0:
        assert_same(scaled.policies, plain.policies)


def test_the_scale_of_returns_by_hand():
    rng = np.random.RandomState(0)
    reward, done = rng.normal(size=(2, 5, 3, 1)).astype(np.float32), rng.rand(2, 5, 3) < 0.3
    scaler, squares = running_scale(), []
    statistics = scaler.init()
    assert float(scaler.scale(statistics)) == 1.0
    for i in range(2):
        returns = np.zeros((6, 3, 1))
        for t in reversed(range(5)):
            returns[t] = reward[i, t] + 0.9 * returns[t + 1] * ~done[i, t][:, None]
        squares.append(np.square(returns[:5]).mean())
        statistics = scaler.update(statistics, jnp.asarray(reward[i]), jnp.asarray(done[i]), 0.9, None)
    expected = (DECAY * squares[0] + squares[1]) / (DECAY + 1)
    np.testing.assert_allclose(float(scaler.scale(statistics)), np.sqrt(expected), rtol=1e-6)


def test_first_clocks_of_very_long_episodes():
    env = line_walk(episode_length=10**9)
    episodes = first_episodes(env, make_starts(env, jax.random.split(jax.random.key(0), 64)))
    np.testing.assert_array_equal(episodes.steps_left, np.arange(1, 65) * 15_625_000)


def test_evaluation_of_very_long_episodes_ends_and_says_so():
    config = replace(CONFIG, evaluation_steps=16)
    with pytest.warns(RunWarning, match="evaluation takes the first 16 of 1,000,000,000 steps of an episode"):
        result = train(line_walk(episode_length=10**9), Population(GOALS, near), config, plain_em(K, N), progress=False)
    assert result.summary["evaluation_steps"] == 16
    assert result.summary["episode_length"] == [16.0, 16.0]


def test_every_episode_that_begins_has_a_start_of_its_own():
    """One-step episodes, E = 4, T = 64: 256 begin."""
    env, sizes = guard(line_walk(episode_length=1)), Sizes(environments=4, unroll=64, minibatches=4)
    starts = fresh_starts(env, sizes, jax.random.key(1), sizes.unroll)
    states = first_episodes(env, fresh_starts(env, sizes, jax.random.key(0)))
    step = jax.vmap(auto_reset(env, starts, 4).step)
    _, seen = jax.jit(lambda states: jax.lax.scan(lambda s, _: (step(s, jnp.zeros(4, jnp.int32))[0], s.obs), states, None, 65))(
        states
    )
    assert len({tuple(obs) for obs in np.asarray(seen).reshape(-1, 2).tolist()}) == 260


def test_mean_outcomes_are_those_of_steps_that_did_not_diverge():
    config = replace(CONFIG, sizes=replace(SIZES, environments=1, minibatches=1))
    env = line_walk(seen=lambda x: jnp.where(x[1] > 0.5, jnp.nan, x), outcome=lambda x: 2.0 + 0.0 * x[0])
    trainer = make_trainer(env, Population(GOALS, near), config, fixed(K, N, np.arange(N) % K))
    state, diverged = jax.jit(trainer.init)(jax.random.key(0)), 0
    step = jax.jit(trainer.step)
    for _ in range(4):
        state, info = step(state)
        sound = np.asarray(info.diverged) < SIZES.unroll
        np.testing.assert_allclose(np.asarray(info.outcome)[sound], 2.0, rtol=1e-6)
        diverged += int(info.diverged[sound].sum())
    assert diverged > 0


def test_a_gradient_that_is_not_finite_moves_nobody():
    soft = end_to_end(K, N, gradient="surrogate")
    state = soft.init(jax.random.key(0))
    gradient = jnp.ones((K, N)).at[1, 0].set(2.0)
    expected = soft.descend(gradient.at[0].set(0.0), state)
    assert_same(soft.descend(gradient.at[0].set(jnp.nan), state), expected)
    assert finite(expected)


def test_the_share_of_bad_rewards_is_of_the_steps_that_are_sampled():
    config = replace(CONFIG, sizes=replace(SIZES, agents_exact=2))  # of 32 steps an iteration, where 64 would be sampled
    line = {"iteration": 1, "diverged": [0, 0], "recovered": [0, 0], "nonfinite_rewards_by_agent": {"1": K * SIZES.transitions}}
    with pytest.raises(TrainingError, match=r"was not finite in 64 steps \(100.0%\)"):
        FaultWatch(line_walk().spec, config, print).read(line)
