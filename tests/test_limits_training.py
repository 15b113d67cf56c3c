"""Limits in training: every hard E-step holds them, and is the best that does; what runs end with, say and refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax import ConfigError, Limits, RunSpec, em, end_to_end, make_trainer, plain_em, train, train_batch
from rmdp_jax.assigners.base import EStepInput
from rmdp_jax.assigners.exchange import best_within, nearest_within
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.limits import assign_within, loads_of
from rmdp_jax.records.files import RunWarning
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
    [
        (plain_em, {"at_most": 2}),
        (plain_em, {"at_least": (1, 3)}),
        pytest.param(em, {"at_most": (1, 3)}, marks=pytest.mark.slow),
    ],
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


@pytest.mark.slow
def test_seeds_together_and_a_stopped_run_hold_them():
    def stop(line):
        raise StopIteration

    env, population = make_tiny()
    config = replace(CONFIG, at_most=(1, 3))
    for result in train(env, population, config, em(K, N), seeds=2, on_metrics=stop, progress=False):
        assert not result.summary["finished"]
        assert np.bincount(result.assignment, minlength=K).tolist() == [1, 3]


@pytest.mark.parametrize("options", [{}, {"explore": 0}])
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


# Limits by weight.

WEIGHTS = np.array([1.0, 1.0, 2.0, 3.0, 0.5, 0.5, 2.5, 1.5, 1.0], np.float32)
BY_WEIGHT = loads_of(Limits(5.5, 3), *SHAPE, weights=WEIGHTS)


def weight_of(labels, weights=WEIGHTS, k=3):
    return np.bincount(labels, weights, minlength=k)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_e_step_by_weight_holds_limits_and_no_change_raises_it(seed):
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=SHAPE).astype(np.float32)  # times the weights, as an E-step sees it
    before = rng.integers(0, 3, 9).astype(np.int32)
    labels = np.asarray(WEIGHED(worth, before))
    reached = worth[labels, agents].sum()
    for i in range(9):
        for other in [labels, *(np.where(agents == i, j, labels) for j in range(3))]:
            for swapped in [other, *(_changed(labels, i, o) for o in range(9))]:
                if (weight_of(swapped) <= 5.5).all() and (weight_of(swapped) >= 3).all():
                    assert worth[swapped, agents].sum() <= reached + 1e-4
    assert (weight_of(labels) <= 5.5).all()
    assert (weight_of(labels) >= 3).all()
    best = assign_within(worth / WEIGHTS, Limits(5.5, 3), WEIGHTS)
    assert reached <= worth[best, agents].sum() + 1e-4
    np.testing.assert_array_equal(WEIGHED(worth, best), best)


def _changed(labels, one, other):
    new = labels.copy()
    new[[one, other]] = labels[[other, one]]
    return new


WEIGHED = jax.jit(lambda utility, labels: best_within(utility, labels, BY_WEIGHT))


def test_equal_weights_are_counted_as_agents():
    tenths = jnp.full(9, 0.1, jnp.float32)
    assert loads_of(Limits(0.3), *SHAPE, weights=tenths) == loads_of(Limits(3), *SHAPE)


@pytest.mark.slow
def test_a_run_ends_with_the_best_within_its_limits_by_weight():
    env, population = make_tiny()
    weights = jnp.array([1.0, 2.0, 3.0, 4.0])
    result = train(
        env, population._replace(weights=weights), replace(CONFIG, at_most=(6, 5)), plain_em(K, N), seeds=2, progress=False
    )
    for one in result:
        load = weight_of(np.asarray(one.assignment), np.asarray(weights), K)
        assert (load <= [6, 5]).all(), load
        assert (load > 0).all()
    other = population._replace(weights=weights[::-1])
    specs = [RunSpec(of, replace(CONFIG, at_most=6), plain_em(K, N)) for of in (population._replace(weights=weights), other)]
    with pytest.raises(ConfigError, match="weights: those of two runs differ, and policies have limits, which count them"):
        train_batch(env, specs, progress=False)


def test_a_best_that_is_not_proved_in_time_is_told(monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.batch.search_within", lambda *of: None)
    env, population = make_tiny()
    weighted = population._replace(weights=jnp.array([1.0, 2.0, 3.0, 4.0]))
    with pytest.warns(RunWarning, match="limits by weight: the best assignment was not proved in 60 s, so the best known"):
        result = train(env, weighted, replace(CONFIG, at_most=6), plain_em(K, N), progress=False)
    assert (weight_of(np.asarray(result.assignment), [1.0, 2, 3, 4], K) <= 6).all()


def test_of_very_many_pairs_the_last_e_step_counts(monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.batch.LARGEST_PROGRAM", 1)
    env, population = make_tiny()
    with pytest.warns(RunWarning, match="limits: the best of 8 pairs is not looked for, so agents stay where the last"):
        result = train(env, population, replace(CONFIG, at_most=2), plain_em(K, N), progress=False)
    assert np.bincount(result.assignment, minlength=K).tolist() == [2, 2]


def test_without_limits_no_limit_is_written(tmp_path):
    env, population = make_tiny()
    train(env, population, CONFIG, plain_em(K, N), out=tmp_path / "run", progress=False)
    assert "at_most" not in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"at_most": (1, 2, 3)}, "at_most = .*: must be a number from 0 up, or k = 2 of them"),
        ({"at_most": "many"}, "at_most = 'many': must be a number from 0 up, or one for each policy"),
        ({"at_least": float("nan")}, "at_least = nan: must be a number from 0 up"),
        ({"at_most": (1, 3), "at_least": 2}, "at_least = 2, at_most = 1 for policy 0"),
    ],
)
def test_limits_that_nobody_can_hold_are_refused_in_the_config(limits, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **limits)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"at_most": 1}, "at_most: the 2 policies have room for 2 agents together, and there are 4; give at least 2 each"),
        ({"at_least": (2, 3)}, "at_least: the 2 policies ask for 5 agents together, and there are 4; give at most 2 each"),
    ],
)
def test_limits_without_room_are_refused_before_there_is_a_folder(limits, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(*make_tiny(), replace(CONFIG, **limits), em(K, N), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_who_cannot_hold_limits_says_so():
    env, population = make_tiny()
    config = replace(CONFIG, at_most=3)
    with pytest.raises(ConfigError, match="algorithm = 'end_to_end': must be em or plain_em where policies have limits"):
        make_trainer(env, population, config, end_to_end(K, N))
    weighted = population._replace(weights=jnp.arange(1.0, N + 1))
    with pytest.raises(ConfigError, match="at_most: the 2 policies have room for 6 of weight together, and there are 10"):
        make_trainer(env, weighted, config, plain_em(K, N))
    with pytest.raises(ConfigError, match=r"limits: no assignment of 4 agents, of weights 1 to 1000, holds at_least = "):
        make_trainer(env, weighted._replace(weights=jnp.array([1.0, 1, 1, 1000])), replace(CONFIG, at_most=900), plain_em(K, N))
    with pytest.raises(ConfigError, match=r"at_most = 0\.5 for policy 0: must be at least 1, as a policy for nobody learns"):
        make_trainer(env, weighted, replace(CONFIG, at_most=(0.5, 10)), plain_em(K, N))
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
