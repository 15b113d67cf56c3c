"""Limits in training: every hard E-step holds them, and is the best that does; what runs end with, say and refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError, Limits, em, end_to_end, make_trainer, plain_em, train
from rmdp_jax.assigners.base import EStepInput
from rmdp_jax.assigners.exchange import best_within, nearest_within
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.evaluation.limits import assign_within
from rmdp_jax.limits import loads_of
from rmdp_jax.records.loading import load_run
from tests.tiny import CONFIG, FLAGS, K, N, make_tiny

SHAPE = (3, 9)
LOADS = [loads_of(limits, *SHAPE) for limits in (Limits(3), Limits([4, 2, 5], [1, 0, 2]))]
COMPILED = [jax.jit(lambda utility, labels, loads=loads: best_within(utility, labels, loads)) for loads in LOADS]
agents = np.arange(SHAPE[1])


def assert_holds(labels, loads):
    counts = np.bincount(labels, minlength=len(loads.at_most))
    assert (counts >= loads.at_least).all(), counts
    assert (counts <= loads.at_most).all(), counts


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-4, 1e5]), st.booleans())
def test_the_e_step_is_the_best_assignment_within_limits(which, seed, scale, ties):
    rng = np.random.default_rng(seed)
    utility = rng.integers(-3, 4, SHAPE) if ties else rng.normal(size=SHAPE)
    utility = (scale * utility).astype(np.float32)
    before = rng.integers(0, 3, 9).astype(np.int32)
    labels = np.asarray(COMPILED[which](utility, before))
    assert_holds(labels, LOADS[which])
    best = assign_within(utility, LOADS[which])
    assert utility[labels, agents].sum() == pytest.approx(utility[best, agents].sum(), abs=1e-5 * scale * 9)
    np.testing.assert_array_equal(COMPILED[which](utility, labels), labels)  # and stays there


def test_many_agents_move_at_once_and_ties_stay():
    k, n = 4, 2000
    loads = loads_of(Limits(550, 450), k, n)
    utility = jax.random.uniform(jax.random.key(0), (k, n)) + jnp.arange(k, dtype=jnp.float32)[:, None] / 4.0
    step = jax.jit(lambda utility, labels: best_within(utility, labels, loads))
    labels = step(utility, jnp.arange(n, dtype=jnp.int32) % k)
    assert_holds(labels, loads)
    best = assign_within(utility, loads)
    at = np.arange(n)
    assert float(utility[labels, at].mean()) == pytest.approx(float(utility[best, at].mean()), abs=1e-5)
    np.testing.assert_array_equal(step(jnp.ones((k, n)), labels), labels)


def test_labels_beyond_limits_change_as_little_as_can_be():
    labels = jnp.array([0, 0, 0, 0, 0, 1, 1, 2, 2], jnp.int32)
    near = np.asarray(nearest_within(labels, LOADS[0]))
    assert_holds(near, LOADS[0])
    assert (near != labels).sum() == 2
    np.testing.assert_array_equal(nearest_within(near, LOADS[0]), near)


@pytest.mark.parametrize(
    ("make_assigner", "limits"),
    [(plain_em, {"at_most": 2}), (plain_em, {"at_least": (1, 3)}), (em, {"at_most": (1, 3)})],
)
def test_a_run_ends_within_its_limits(make_assigner, limits, tmp_path):
    env, population = make_tiny()
    config = replace(CONFIG, **limits)
    result = train(env, population, config, make_assigner(K, N), out=tmp_path / "run", progress=False)
    loads = loads_of(config.limits, K, N)
    assert_holds(result.assignment, loads)
    assert_holds(result.summary["assignment"], loads)
    run = load_run(tmp_path / "run", make)
    assert run.config == config
    for line in result.metrics if make_assigner is plain_em else []:  # em's is soft while it explores
        assert (np.array(line["policy_sizes"]) <= loads.at_most).all()
    with pytest.raises(ConfigError, match=r"resume: at_(most|least) \(\[.*\] there, None here\)"):
        train(env, population, CONFIG, make_assigner(K, N), out=tmp_path / "run", resume=True, progress=False)


def test_seeds_together_and_a_stopped_run_hold_them():
    def stop(line):
        raise StopIteration

    env, population = make_tiny()
    config = replace(CONFIG, at_most=(1, 3))
    for result in train(env, population, config, em(K, N), seeds=2, on_metrics=stop, progress=False):
        assert not result.summary["finished"]
        assert np.bincount(result.assignment, minlength=K).tolist() == [1, 3]


@pytest.mark.parametrize("options", [{}, {"explore_share": 0.0}])
def test_e_steps_of_em_hold_limits_whenever_they_are_hard(options):
    k, n = 3, 12
    loads = loads_of(Limits([4, 4, 5], 2), k, n)
    assigner = em(k, n, segment_environments=4, relocate_every=3, anneal=3, **options)
    assert assigner.takes_limits
    utility = 10 * jax.random.uniform(jax.random.key(1), (k, n)) + jnp.array([[30.0], [0.0], [0.0]])
    segments = utility[:, None] * jnp.linspace(0.5, 1.0, 4)[None, :, None]

    @jax.jit
    def step(state, iteration):
        archived = jnp.zeros((assigner.archive_size, n))
        inputs = EStepInput(utility, iteration, (iteration + 1) / 40, segments, archived, limits=loads)
        return assigner.reassign(jax.random.key(0), state, inputs)[0]

    state, hard = assigner.init(jax.random.key(0)), 0
    for iteration in range(40):
        state = step(state, jnp.int32(iteration))
        weights = np.asarray(assigner.weights(state))
        if set(np.unique(weights)) == {0.0, 1.0}:
            hard += 1
            assert_holds(weights.argmax(0), loads)
    assert hard > 10


def test_without_limits_no_limit_is_written(tmp_path):
    env, population = make_tiny()
    train(env, population, CONFIG, plain_em(K, N), out=tmp_path / "run", progress=False)
    assert "at_most" not in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"at_most": 1}, "at_most: the 2 policies have room for 2 agents together, and there are 4; give at least 2 each"),
        ({"at_least": (2, 3)}, "at_least: the 2 policies ask for 5 agents together, and there are 4; give at most 2 each"),
        ({"at_most": (1, 2, 3)}, "at_most = .*: must be a number from 0 up, or k = 2 of them"),
        ({"at_most": "many"}, "at_most = 'many': must be a number from 0 up, or one for each policy"),
        ({"at_least": float("nan")}, "at_least = nan: must be a number from 0 up"),
        ({"at_most": (1, 3), "at_least": 2}, "at_least = 2, at_most = 1 for policy 0"),
    ],
)
def test_limits_that_nobody_can_hold_are_refused_in_the_config(limits, told):
    with pytest.raises(ConfigError, match=told):
        replace(CONFIG, **limits)


def test_who_cannot_hold_limits_says_so():
    env, population = make_tiny()
    config = replace(CONFIG, at_most=3)
    with pytest.raises(ConfigError, match="algorithm = 'end_to_end': must be em or plain_em where policies have limits"):
        make_trainer(env, population, config, end_to_end(K, N))
    with pytest.raises(ConfigError, match="at_most, at_least: count agents alike in training, and these have weights"):
        make_trainer(env, population._replace(weights=jnp.ones(N)), config, plain_em(K, N))
    with pytest.raises(ConfigError, match="at_most = 0 for policy 0: must be at least 1"):
        make_trainer(env, population, replace(CONFIG, at_most=(0, 4)), plain_em(K, N))


@pytest.mark.parametrize("algorithm", ["cluster", "affinity", "random"])
def test_the_command_refuses_before_anything_is_trained(algorithm, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "resource_gathering", "--size", "2", "--k", "2", "--transitions", "1e5", *FLAGS, "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--algorithm", algorithm, "--at-most", "2"])
    assert ended.value.code == 2
    assert "must be em or plain_em where policies have limits" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
