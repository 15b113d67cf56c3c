"""C MuJoCo against MJX, and what a callback must withstand: batches, threads, many calls, diverged states."""

import importlib.util
import itertools
import os
import threading
from functools import cache
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from rmdp_jax.env import guard
from rmdp_jax.envs import native
from rmdp_jax.envs.speed import BODIES, make_speed
from rmdp_jax.errors import ConfigError

# Per body: (99th percentile, largest) difference of an observation between C and MJX one step from equal states, in units of
# 1 + |value|, over 400 states of random rollouts. Measured: HalfCheetah 4e-5, 8e-5; Walker2d 5e-5, 2.0e-4; Hopper 1e-6, 2e-6;
# Ant 1e-5, 1.3e-4. C computes in float64 and MJX in float32, which is likely what a contact amplifies now and then; in longer
# rollouts (800 to 1,200 states) the largest absolute differences were 3e-3 (HalfCheetah, at 20 m/s) and 2e-2 (Ant).
PARITY = {"halfcheetah": (2e-4, 5e-4), "walker2d": (2e-4, 5e-4), "hopper": (2e-5, 2e-5), "ant": (2e-4, 2e-2)}
BATCH = (2, 4)  # policies, environments


@cache
def made(body, backend="native"):
    return make_speed(body, n=5, backend=backend)


def brax_env(body):
    with native.quiet():
        module = import_module(f"brax.envs.{BODIES[body].module}")
        return getattr(module, BODIES[body].cls)(backend="mjx")


@cache
def programs(body, axes=2, backend="native"):
    """Jitted reset and step, guarded, vmapped over a number of axes; each compiles once for all tests."""
    env = guard(made(body, backend)[0])
    reset, step = env.reset, env.step
    for _ in range(axes):
        reset, step = jax.vmap(reset), jax.vmap(step)
    return jax.jit(reset), jax.jit(step)


def actions(env, key, *shape):
    return jax.random.uniform(key, (*shape, env.spec.action_size), minval=-1.0, maxval=1.0)


def abstract(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.tree.map(jax.typeof, tree))


@pytest.mark.slow  # MJX compiles for some 20 s a body
@pytest.mark.parametrize("body", BODIES)
def test_one_step_equals_mjx(body):
    env, _ = made(body)
    reset, step = programs(body)
    _, other = programs(body, backend="mjx")
    differences, ended = [], 0
    for t in range(50):
        if t % 25 == 0:
            state, _ = reset(jax.random.split(jax.random.key(t), BATCH))
        action = actions(env, jax.random.key(100 + t), *BATCH)
        theirs_state, theirs = other(state, action)
        state, ours = step(state, action)
        assert abstract(state) == abstract(theirs_state)
        differences.append(np.abs(ours.obs - theirs.obs) / (1.0 + np.abs(theirs.obs)))
        np.testing.assert_allclose(ours.outcome.speed, theirs.outcome.speed, atol=2e-2 if body == "ant" else 2e-4)
        np.testing.assert_array_equal(ours.terminated, theirs.terminated)
        ended += int(ours.terminated.sum())
    worst = np.array(differences).max(-1)
    usual, largest = PARITY[body]
    assert np.percentile(worst, 99) < usual
    assert worst.max() < largest
    assert (ended > 0) == (body != "halfcheetah")  # both sides of the health rule were compared


@pytest.mark.parametrize("body", BODIES)
def test_contract(body):
    env, population = made(body)
    assert env.spec.backend == "native"
    reset, step = programs(body)
    keys = jax.random.split(jax.random.key(0), BATCH)
    state, obs = reset(keys)
    assert obs.shape == (*BATCH, env.spec.observation_size)
    np.testing.assert_array_equal(obs, reset(keys)[1])
    assert len(np.unique(np.asarray(obs)[..., -1])) == 8
    action = actions(env, jax.random.key(1), *BATCH)
    after, stepped = step(state, action)
    assert abstract(after) == abstract(state)
    assert abstract(stepped.obs) == abstract(obs)
    assert (stepped.terminated.dtype, stepped.truncated.dtype, stepped.outcome.speed.dtype) == (bool, bool, jnp.float32)
    assert np.isfinite(stepped.obs).all()
    assert not stepped.terminated.any()  # a first step from standing
    rewards = jax.vmap(jax.vmap(population.rewards))(stepped)
    assert rewards.shape == (*BATCH, 5)
    forward = (after[0].carried[0][..., 0] - state[0].carried[0][..., 0]) / {"halfcheetah": 0.05, "ant": 0.05}.get(body, 0.008)
    np.testing.assert_allclose(stepped.outcome.speed, forward, atol=1e-4)


@pytest.mark.parametrize("body", BODIES)
def test_poses_are_those_of_the_state(body):
    # Health rules and observations read brax poses; ours belong to the (q, qd) after the step, not to a substep earlier.
    env = brax_env(body)
    q = np.asarray(env.sys.init_q) + np.random.default_rng(0).uniform(-0.1, 0.1, env.sys.nq).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state = jax.jit(native.native_env(env).pipeline_init)(jnp.asarray(q), jnp.zeros(env.sys.nv))
    data = native.mujoco.MjData(env.sys.mj_model)
    data.qpos = q
    native.mujoco.mj_kinematics(env.sys.mj_model, data)
    np.testing.assert_allclose(state.x.pos, data.xpos[1:], atol=2e-5)


@pytest.mark.parametrize("body", ["hopper", "walker2d"])
def test_observed_height_is_that_of_the_state(body):
    reset, step = programs(body)
    state, _ = reset(jax.random.split(jax.random.key(0), BATCH))
    (inner, *_), stepped = step(state, actions(made(body)[0], jax.random.key(1), *BATCH))
    np.testing.assert_allclose(stepped.obs[..., 0], 1.25 + inner.carried[0][..., 1], rtol=1e-6)


def test_batch_in_scan_equals_single_steps():
    env, _ = made("hopper")
    keys = jax.random.split(jax.random.key(3), (2, 2, 2))  # seeds, policies, environments
    plan = actions(env, jax.random.key(4), 5, 2, 2, 2)
    state, _ = programs("hopper", 3)[0](keys)
    step = programs("hopper", 3)[1]
    together = jax.jit(lambda s: jax.lax.scan(step, s, plan)[1].obs)(state)
    single = jax.jit(lambda s, p: jax.lax.scan(guard(env).step, s, p)[1].obs)
    for place in ((0, 0, 0), (1, 0, 1), (1, 1, 1)):
        alone = single(jax.tree.map(lambda x, i=place: x[i], state), plan[:, *place])
        np.testing.assert_array_equal(together[:, *place], alone)


def test_threads_do_not_change_numbers():
    env = brax_env("hopper")
    q, qd = env.sys.init_q, jnp.zeros(env.sys.nv)
    plan = jax.random.uniform(jax.random.key(0), (64, env.sys.nu))
    steps = [native._c_advance(native.c_model(env.sys), 4, threads) for threads in (1, 2, 5)]
    first, *others = [jax.vmap(step, (None, None, 0))(q, qd, plan)[0] for step in steps]
    assert len(np.unique(first, axis=0)) == 64
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.slow
def test_ten_thousand_calls_leak_nothing():
    env, _ = made("hopper")
    reset, step = programs("hopper")
    calls = 2500

    @jax.jit
    def run(state):
        plan = actions(env, jax.random.key(0), calls, 1, 2)
        return jax.lax.scan(lambda s, a: (step(s, a)[0], None), state, plan)[0]

    start, _ = reset(jax.random.split(jax.random.key(0), (1, 2)))
    jax.block_until_ready(run(start))  # compiles, fills pools
    threads, memory = threading.active_count(), [resident()]
    for _ in range(4):
        jax.block_until_ready(run(start))
        memory.append(resident())
    # What leaks grows every time; the allocator's pools grow now and then. Waiting for the garbage collector counts as a leak.
    assert min(after - before for before, after in itertools.pairwise(memory)) < 200 * calls
    assert threading.active_count() == threads


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_programs_at_once():
    env, _ = made("hopper")
    reset, step = programs("hopper")
    state, _ = reset(jax.random.split(jax.random.key(0), BATCH))
    plan = [actions(env, jax.random.key(t), *BATCH) for t in range(50)]
    expected = [np.asarray(step(state, action)[1].obs) for action in plan]
    wrong = []

    def work(order):
        wrong.extend(t for t in order if (np.asarray(step(state, plan[t])[1].obs) != expected[t]).any())

    workers = [threading.Thread(target=work, args=(order,)) for order in (range(50), range(49, -1, -1))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_large_batch_does_not_hang():
    # Arguments of a callback are JAX arrays; large ones are copied by the very threads that wait for the callback.
    env, _ = made("hopper")
    reset, step = programs("hopper")
    state, _ = reset(jax.random.split(jax.random.key(0), (2, 4096)))
    for t in range(5):
        state, stepped = step(state, actions(env, jax.random.key(t), 2, 4096))
    assert np.isfinite(stepped.obs).all()


@pytest.mark.parametrize(
    ("where", "value"),  # an action may be as large as it likes: the guard clips it
    [*((where, value) for where in ("q", "qd") for value in (np.nan, np.inf, 1e30)), ("qd", 2e3), ("action", np.nan)],
)
def test_divergence_is_flagged_and_pays_nothing(where, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env, population = made("halfcheetah")
    reset, step = programs("halfcheetah")
    guarded, _ = reset(jax.random.split(jax.random.key(0), BATCH))
    action = np.array(actions(env, jax.random.key(1), *BATCH))
    if where == "action":
        action[1, 2, 0] = value
    else:
        leaf = ("q", "qd").index(where)
        carried = list(guarded.inner.carried)
        carried[leaf] = carried[leaf].at[1, 2, 4].set(value)
        guarded = guarded._replace(inner=guarded.inner._replace(carried=tuple(carried)))
    _, stepped = step(guarded, action)
    expected = np.zeros(BATCH, bool)
    expected[1, 2] = True
    np.testing.assert_array_equal(stepped.diverged, expected)
    np.testing.assert_array_equal(stepped.terminated, expected)
    assert np.isfinite(stepped.obs).all()
    rewards = jax.vmap(jax.vmap(population.rewards))(stepped)
    np.testing.assert_array_equal(rewards[1, 2], np.zeros(5))
    assert not list(tmp_path.iterdir())  # no MUJOCO_LOG.TXT


def test_models_with_actuator_states_are_refused():
    class Body:
        class sys:
            na = 1

    with pytest.raises(ValueError, match="actuator states"):
        native.with_advance(Body(), None)


def test_warp_says_how_to_install_it():
    if importlib.util.find_spec("warp") is not None:
        pytest.skip("warp-lang is installed")
    with pytest.raises(ConfigError, match=r"backend = 'warp': takes warp-lang, which is not installed; .*'.\[warp\]'; or take"):
        make_speed("hopper", n=5, backend="warp")


def test_products_of_physics_are_in_float32_whatever_is_set():
    with jax.default_matmul_precision("bfloat16"):
        env, _ = made("hopper", "mjx")
        state, _ = jax.eval_shape(env.reset, jax.random.key(0))
        program = jax.make_jaxpr(env.step)(state, jnp.zeros(env.spec.action_size))
    products = [equation for equation in equations(program.jaxpr) if equation.primitive.name == "dot_general"]
    assert len(products) > 10
    assert {equation.params["precision"] for equation in products} == {(jax.lax.Precision.HIGHEST,) * 2}


def test_line_search_of_mjx_is_cut_to_what_it_needs():
    env, _ = made("hopper", "mjx")
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    program = jax.make_jaxpr(env.step)(state, jnp.zeros(env.spec.action_size))
    lengths = {equation.params["length"] for equation in equations(program.jaxpr) if equation.primitive.name == "scan"}
    assert native.LINE_SEARCH in lengths
    assert max(lengths) < 50, "what brax gives its bodies"


def equations(program):
    """Of a program and of those inside it."""
    for equation in program.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)
