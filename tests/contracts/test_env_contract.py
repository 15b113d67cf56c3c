"""Every env in pure JAX keeps the same contract, bare and under `guard` and `auto_reset`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe

from rmdp_jax import Env, EnvSpec, Population, Sizes, Step, TrainConfig, em, make_trainer, with_context
from rmdp_jax.env import auto_reset, first_episodes, guard, make_starts
from rmdp_jax.envs import make

K, E, T = 2, 3, 50
TASKS = {
    **{f"resource_gathering-{m}": lambda m=m: make("resource_gathering", size=m) for m in (3, 4, 5)},
    **{f"probe-{name}": lambda probe=probe: make_probe(probe, 4) for name, probe in PROBES.items()},
    "in-context": lambda: with_context(*make_probe(PROBES["both"], 4)),
    "resource_gathering-in-context": lambda: make("resource_gathering", size=3, context=True),
}
WRAPPERS = {
    "bare": lambda env: env,
    "guard": guard,
    "auto_reset": lambda env: auto_reset(guard(env), make_starts(guard(env), jax.random.split(jax.random.key(7), 5))),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]()


def describe(tree):
    """Abstract value of every leaf: shape, dtype and weak type."""
    return jax.tree.map(jax.typeof, tree)


def actions_of(spec, seed, shape):
    assert spec.discrete
    return jax.random.randint(jax.random.key(seed), shape, 0, spec.action_size)


def play(env, keys, actions):
    """Steps of a (k, E) batch: first observations (k, E, o) and what was stepped, leaves (T, k, E, ...)."""

    def advance(state, action):
        return jax.vmap(jax.vmap(env.step))(state, action)

    state, obs = jax.vmap(jax.vmap(env.reset))(keys)
    return obs, jax.lax.scan(advance, state, actions)[1]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_step_keeps_the_abstract_state(task, wrapper):
    env = WRAPPERS[wrapper](task[0])
    state, obs = env.reset(jax.random.key(0))
    after, stepped = env.step(state, actions_of(env.spec, 0, ()))
    assert describe(after) == describe(state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(describe((state, obs, stepped))) if hasattr(leaf, "weak_type"))
    assert describe(stepped.obs) == describe(obs)
    assert (obs.shape, obs.dtype) == ((env.spec.observation_size,), jnp.float32)
    assert (stepped.terminated.shape, stepped.terminated.dtype) == ((), bool)
    assert (stepped.truncated.shape, stepped.truncated.dtype) == ((), bool)


def test_rewards_are_float32_one_per_agent(task):
    env, population = task
    stepped = env.step(env.reset(jax.random.key(0))[0], actions_of(env.spec, 0, ()))[1]
    rewards = population.rewards(stepped)
    assert (rewards.shape, rewards.dtype, jax.typeof(rewards).weak_type) == ((population.n,), jnp.float32, False)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_batches_are_finite_deterministic_and_equal_single_runs(task, wrapper):
    env = WRAPPERS[wrapper](task[0])
    keys = jax.random.split(jax.random.key(1), (K, E))
    actions = actions_of(env.spec, 2, (T, K, E))
    run = jax.jit(lambda keys, actions: play(env, jax.random.clone(keys), actions))  # again and again, from the same keys
    first, stepped = run(keys, actions)
    for leaf in jax.tree.leaves((first, stepped)):
        assert np.isfinite(np.asarray(leaf)).all()
    jax.tree.map(np.testing.assert_array_equal, (first, stepped), run(keys, actions))
    for j, e in [(0, 0), (K - 1, E - 1)]:
        lone_first, lone = run(keys[j, e][None, None], actions[:, j, e][:, None, None])
        np.testing.assert_array_equal(lone_first[0, 0], first[j, e])
        for single, batched in zip(jax.tree.leaves(lone), jax.tree.leaves(stepped), strict=True):
            np.testing.assert_allclose(single[:, 0, 0], batched[:, j, e], rtol=1e-6)  # 1 - t/100 may round otherwise
    assert not (stepped.terminated & stepped.truncated).any()


def test_episodes_end_by_their_length(task):
    env = task[0]
    actions = actions_of(env.spec, 3, (env.spec.episode_length, K, E))
    _, stepped = jax.jit(lambda keys, actions: play(env, keys, actions))(jax.random.split(jax.random.key(1), (K, E)), actions)
    assert (stepped.terminated | stepped.truncated).any(0).all()


def test_first_episodes_are_staggered(task):
    env, number = task[0], 4
    episodes = first_episodes(env, make_starts(env, jax.random.split(jax.random.key(0), number)))
    length = env.spec.episode_length
    expected = [max(1, (slot + 1) * length // number) for slot in range(number)]
    assert episodes.steps_left.tolist() == expected
    assert episodes.cursor.tolist() == [0, 1, 2, 3]
    assert expected[-1] == length
    kept = auto_reset(env, make_starts(env, jax.random.split(jax.random.key(0), number)))
    after, _ = jax.vmap(kept.step)(episodes, jnp.zeros(number, jnp.int32))
    assert describe(after) == describe(episodes)


class Count(NamedTuple):
    count: jax.Array  # () float32


class Paid(NamedTuple):
    count: jax.Array  # () float32, paid


def counting(breaks="nothing", episode_length=100, finite_horizon=False):
    """Starts at a random -10, -20, ..., counts up by one a step, ends nowhere; the third step of an episode may break."""

    def reset(key):
        count = -10.0 * jax.random.randint(key, (), 1, 1000).astype(jnp.float32)
        return (Count(count), jnp.int32(0)), jnp.array([count, 0.0])

    def step(state, action):
        (count,), clock = state
        count, clock = count + 1.0, clock + 1
        worse = jnp.where(clock == 3, {"nan": jnp.nan, "inf": -jnp.inf}.get(breaks[-3:], 0.0), 0.0)
        obs = jnp.stack([count, worse if breaks.startswith("obs") else jnp.float32(0)])
        paid = 1.0 + (worse if breaks.startswith("outcome") else 0.0)
        return (Count(count), clock), Step(obs, Paid(paid), jnp.bool_(False), clock >= episode_length)

    spec = EnvSpec("counting", 2, 2, True, episode_length, 0.9, 100.0, "jax", finite_horizon)
    return Env(spec, reset, step), Population(jnp.ones(2), lambda agent, stepped: agent * stepped.count)


@pytest.mark.parametrize("finite_horizon", [False, True])
def test_auto_reset_tells_the_true_successor_and_goes_on_with_the_next_start(finite_horizon):
    bare, _ = counting(episode_length=3, finite_horizon=finite_horizon)
    pool = make_starts(bare, jax.random.split(jax.random.key(0), 2))
    env = auto_reset(bare, pool)
    state, obs = env.reset(jax.random.key(5))
    begun, seen = float(obs[0]), []
    for _ in range(9):
        state, stepped = env.step(state, jnp.int32(0))
        seen.append(
            (
                float(stepped.obs[0]),
                float(state.obs[0]),
                bool(stepped.terminated),
                bool(stepped.truncated),
                int(state.steps_left),
            )
        )
    a, b = pool[1][:, 0].tolist()
    end = (finite_horizon, not finite_horizon)
    expected = []
    for start, following in [(begun, a), (a, b), (b, a)]:
        expected += [
            (start + 1, start + 1, False, False, 2),
            (start + 2, start + 2, False, False, 1),
            (start + 3, following, *end, 3),
        ]
    assert seen == expected


def test_a_staggered_cut_is_no_end_even_of_a_finite_horizon():
    bare, _ = counting(episode_length=4, finite_horizon=True)
    pool = make_starts(bare, jax.random.split(jax.random.key(0), 2))
    states = first_episodes(bare, pool)
    _, stepped = jax.vmap(auto_reset(bare, pool).step)(states, jnp.zeros(2, jnp.int32))
    assert stepped.truncated.tolist() == [False, False]
    states = states._replace(steps_left=jnp.array([1, 4], jnp.int32))
    _, stepped = jax.vmap(auto_reset(bare, pool).step)(states, jnp.zeros(2, jnp.int32))
    assert stepped.truncated.tolist() == [True, False]
    assert stepped.terminated.tolist() == [False, False]


BREAKS = ["obs-nan", "obs-inf", "outcome-nan", "outcome-inf"]


@pytest.mark.parametrize("breaks", BREAKS)
def test_guard_marks_what_diverged(breaks):
    bare, population = counting(breaks)
    env = guard(bare)
    state, obs = env.reset(jax.random.key(0))
    stepped = []
    for _ in range(3):
        last = obs
        state, step = env.step(state, jnp.int32(0))
        obs = step.obs
        stepped.append((bool(step.diverged), bool(step.terminated), bool(step.truncated), *population.rewards(step).tolist()))
    assert stepped == [(False, False, False, 1.0, 1.0)] * 2 + [(True, True, False, 0.0, 0.0)]
    np.testing.assert_array_equal(obs, last)


def test_guard_leaves_a_sound_env_alone():
    bare, _ = counting(episode_length=3)
    (state, _), (guarded, _) = bare.reset(jax.random.key(0)), guard(bare).reset(jax.random.key(0))
    for _ in range(3):
        state, stepped = bare.step(state, jnp.int32(0))
        guarded, same = guard(bare).step(guarded, jnp.int32(0))
        assert not same.diverged
        jax.tree.map(np.testing.assert_array_equal, same._replace(diverged=False), stepped)


@pytest.mark.parametrize("breaks", ["obs-nan", "outcome-nan"])
def test_training_survives_an_env_that_breaks_now_and_then(breaks):
    env, population = counting(breaks)
    sizes = Sizes(environments=4, unroll=9, epochs=1, minibatches=2, hidden=(4,), normalize_observations=True)
    trainer = make_trainer(env, population, TrainConfig(k=2, n=2, transitions=360, sizes=sizes), em(2, 2, anneal=1))
    state, step = jax.jit(trainer.init)(jax.random.key(0)), jax.jit(trainer.step)
    for _ in range(3):
        state, info = step(state)
        assert info.diverged.tolist() == [12, 12]  # every third of 9 steps in 4 environments
        assert info.episodes.tolist() == [12, 12]
    kept = state.learner, state.statistics, state.utilities, state.episodes.obs, info
    for leaf in jax.tree.leaves(kept):
        assert np.isfinite(np.asarray(leaf)).all()
    np.testing.assert_allclose(info.utility, 200.0, rtol=1e-5)  # two paid steps an episode, the third pays nothing
