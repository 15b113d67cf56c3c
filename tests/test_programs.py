"""Compiled programs that a process keeps: a second call of the same shapes compiles nothing, and nobody gets another's."""

import gc
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, K, N, assert_same, make_tiny

from rmdp_jax import Env, Population, Rates, clear_programs, em, evaluate, make_act, make_evaluate, plain_em, programs, train
from rmdp_jax.envs import make
from rmdp_jax.fingerprint import Untraceable, fingerprint
from rmdp_jax.records.loading import load_run

compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
)
OTHER = replace(CONFIG, seed=5, rates=Rates(learning_rate=(1e-3, 1e-3), clip=0.1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and all that making it and going on with it compiles."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    clear_programs()
    run(CONFIG, out=folder)
    run(CONFIG, out=folder, resume=True)
    yield folder
    clear_programs()


def live():
    """Executables that are in memory."""
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


def others(population):
    """As many agents who want other cells."""
    return population._replace(agents=jnp.asarray(np.asarray(population.agents)[::-1]))


def run(config, changed=lambda population: population, **options):
    env, population = make_tiny()  # made anew
    return train(env, changed(population), config, plain_em(K, N, warmup=5), progress=False, **options)


def test_a_second_evaluation_act_and_loaded_run_compile_nothing(finished):
    keys = list(jax.random.split(jax.random.key(0), 2))

    def use(seed, changed):
        loaded = load_run(finished, make)
        env, population, config, policies = loaded.env, changed(loaded.population), loaded.config, loaded.policies
        judged = evaluate(env, population, config, policies, loaded.assignment, seed=seed)
        made = make_evaluate(env, population, config, episodes=3)
        action = make_act(env, config)(policies, 0, np.zeros(env.spec.observation_size, np.float32))
        return judged, made(policies, jnp.asarray(loaded.assignment), jax.random.clone(keys[seed])), action

    first = use(0, lambda population: population)
    compiled.clear()
    second = use(1, others)
    assert compiled == []
    assert not np.array_equal(first[0].utility, second[0].utility)
    assert_same(use(0, lambda population: population), first)


def test_a_second_training_compiles_nothing_and_is_what_it_would_be_alone(finished, tmp_path):
    before, number = live(), programs.kept_programs()
    compiled.clear()
    second = run(OTHER, others)
    for _ in range(3):
        run(OTHER, others, out=tmp_path / "second", resume=True)
    assert compiled == []
    assert (live(), programs.kept_programs()) == (before, number)
    clear_programs()
    assert programs.kept_programs() == 0
    assert live() < before - 3
    alone = run(OTHER, others)
    assert compiled
    assert_same(alone.state, second.state)
    assert_same(alone.evaluation, second.evaluation)


GRAVITY = 1.0


class Falls:
    """A user's env as an object."""

    def __init__(self, gravity):
        self.gravity = gravity

    def step(self, state, action):
        return state + self.gravity, action


def closing_over(gravity):
    return lambda state, action: (state + gravity, action)


def reads_a_global(state, action):
    return by_way_of(state), action


def by_way_of(state):
    return state + GRAVITY


def test_functions_of_others_are_themselves_alone():
    one, again = closing_over(1.0), closing_over(1.0)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(again)  # whatever their code says
    assert fingerprint(one) != fingerprint(closing_over(2.0))
    assert fingerprint([one, again]) != fingerprint([one, one])


def test_what_changes_behind_a_function_is_noticed(monkeypatch):
    env, array = Falls(1.0), np.zeros(3)
    methods, closure, by_name = fingerprint(env.step), closing_over(array), fingerprint(reads_a_global)
    assert fingerprint(env.step) == methods
    held = fingerprint(closure)
    assert fingerprint(closure) == held
    assert fingerprint(reads_a_global) == by_name
    env.gravity = 2.0
    array[0] = 1.0
    monkeypatch.setitem(globals(), "GRAVITY", 2.0)
    assert fingerprint(env.step) != methods
    assert fingerprint(closure) != held
    assert fingerprint(reads_a_global) != by_name


@pytest.mark.parametrize(
    "two",
    [
        lambda: make("resource_gathering", size=3)[0]._replace(spec=None),
        lambda: make("resource_gathering", size=3)[1].reward,
        lambda: make("resource_gathering", size=2, context=True)[0]._replace(spec=None),
        lambda: em(3, 9),
        lambda: [jnp.arange(3), np.float32(1.0), float("nan"), jax.random.key(1), Rates()],
    ],
)
def test_what_is_made_anew_with_equal_options_is_the_same(two):
    assert fingerprint(two()) == fingerprint(two())


def test_other_options_are_other_programs():
    made = [make("resource_gathering", size=size)[0] for size in (2, 3)]
    rules = [em(3, 9), em(2, 9), em(3, 9, starts=2), em(3, 9, anneal=5), plain_em(3, 9), plain_em(3, 9, warmup=3)]
    values = [0, 0.0, -0.0, False, None, "0", np.float32(0), jnp.float32(0), np.zeros(1), (0,), [0]]
    known = [fingerprint(value) for value in [*made, *rules, *values]]
    assert len(set(known)) == len(known)


def test_what_is_traced_is_not_kept():
    with pytest.raises(Untraceable):
        jax.jit(lambda x: fingerprint([x]))(1.0)
    env, _ = make_tiny()
    clear_programs()

    def trace(gravity):
        made = make_act(env._replace(step=lambda state, action: (state + gravity, action)), CONFIG)
        programs.kept_program("traced", env._replace(step=lambda state, action: gravity), lambda: made)
        return gravity

    jax.jit(trace)(1.0)
    assert programs.kept_programs() == 1  # that of `make_act`, which does not step


def test_only_the_last_are_kept_and_what_they_hold_goes_with_the_others(monkeypatch):
    monkeypatch.setattr(programs, "MOST", 2)
    clear_programs()
    env, population = make_tiny()
    steps = []
    for _ in range(4):

        def step(state, action):
            return env.step(state, action)

        steps.append(weakref.ref(step))
        make_evaluate(Env(env.spec, env.reset, step), Population(population.agents, population.reward), CONFIG)
    del step
    gc.collect()
    assert programs.kept_programs() == 2
    assert [known() is not None for known in steps[:2]] == [False, False]
