"""Every way in which a task can break its word is one clear line, before anything is compiled."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, make_tiny

from rmdp_jax import ConfigError, Env, EnvSpec, Population, Step, TrainConfig, em, make_trainer, plain_em, train
from rmdp_jax.checks import _play_known, check_env, check_knowledge, check_spec

SPEC = EnvSpec("toy", 2, 2, True, episode_length=8, discount=0.9, reference_scale=1.0, backend="jax")
AGENTS = jnp.linspace(0.0, 1.0, 4)


class State(NamedTuple):
    x: jax.Array  # (2,)
    clock: jax.Array  # ()


def reset(key):
    x = jax.random.uniform(key, (2,))
    return State(x, jnp.int32(0)), x


def step(state, action):
    """Ends by the clock after 8 steps."""
    x = state.x + 0.1 * (2.0 * action.astype(jnp.float32) - 1.0)
    after = State(x, state.clock + 1)
    return after, Step(x, x[0], jnp.bool_(False), after.clock >= 8)


def reward(agent, outcome):
    return -jnp.abs(outcome - agent)


def task(spec=SPEC, reset=reset, step=step, agents=AGENTS, reward=reward):
    return Env(spec, reset, step), Population(agents, reward)


def stepping(change):
    """`step` with its result changed."""

    def changed(state, action):
        return change(*step(state, action))

    return changed


def raises(*arguments):
    raise RuntimeError("no\nsuch thing")


def test_a_sound_task_passes():
    check_env(*task())
    check_env(*task(agents={"goal": np.linspace(0.0, 1.0, 4)}, reward=lambda agent, outcome: reward(agent["goal"], outcome)))
    numbers = {"observation_size": np.int64(2), "discount": np.float32(0.5), "discrete": np.True_, "segment_length": 3}
    check_env(*task(spec=SPEC._replace(**numbers)))


BROKEN_ENVS = {
    "dict observations": (
        {"reset": lambda key: (reset(key)[0], {"a": reset(key)[1]})},
        r"the obs of reset is a dict, must be float32 \(2,\); make it one vector of float32",
    ),
    "observations of another dtype": (
        {"step": stepping(lambda state, step: (state, step._replace(obs=step.obs.astype(jnp.int32))))},
        r"the obs of step is int32 \(2,\), must be float32 \(2,\); give it by .astype\(float32\)",
    ),
    "observations of another size": (
        {"spec": SPEC._replace(observation_size=3)},
        r"the obs of reset is float32 \(2,\), must be float32 \(3,\)",
    ),
    "no pair from reset": ({"reset": lambda key: reset(key)[1]}, r"reset returns a ShapeDtypeStruct, must be \(state, obs\)"),
    "nothing from reset": ({"reset": lambda key: None}, "reset returns a NoneType"),
    "reset is no function": ({"reset": None}, "reset is a NoneType, must be a function"),
    "reset raises": ({"reset": raises}, r"reset raised RuntimeError \(no such thing\)"),
    "words in a state": ({"reset": lambda key: ("here", reset(key)[1])}, "reset raised TypeError"),
    "a step as of gymnasium": (
        {"step": stepping(lambda state, step: (step.obs, 0.0, step.terminated, step.truncated, {}))},
        r"step returns a tuple of 5, must be \(state, Step\(obs, outcome, terminated, truncated\)\)",
    ),
    "a step that is a tuple": (
        {"step": stepping(lambda state, step: (state, tuple(step)))},
        "step returns a tuple of 2, must be",
    ),
    "step raises": ({"step": raises}, r"step raised RuntimeError \(no such thing\)"),
    "a state of another structure": (
        {"step": stepping(lambda state, step: (state._asdict(), step))},
        "the state of step has the structure .* reset and step must give the same structure",
    ),
    "a state of another dtype": (
        {"step": stepping(lambda state, step: (state._replace(clock=state.clock.astype(jnp.float32)), step))},
        r"the state.clock is float32 \(\) after step, int32 \(\) after reset; reset and step must give the same",
    ),
    "a state of another shape": (
        {"step": stepping(lambda state, step: (state._replace(x=state.x[:1]), step))},
        r"the state.x is float32 \(1,\) after step, float32 \(2,\) after reset",
    ),
    "a weakly typed state": (
        {
            "reset": lambda key: (State(reset(key)[1], 0), reset(key)[1]),
            "step": stepping(lambda state, step: (state._replace(clock=state.clock + jnp.int32(0)), step)),
        },
        r"the state.clock is int32 \(\) after step, weak int32 \(\) after reset; .* give constants a dtype",
    ),
    "a flag that is a number": (
        {"step": stepping(lambda state, step: (state, step._replace(terminated=jnp.float32(0))))},
        r"terminated of step is float32 \(\), must be bool \(\); give it by .astype\(bool\)",
    ),
    "a flag that is Python's": (
        {"step": stepping(lambda state, step: (state, step._replace(truncated=None)))},
        r"truncated of step is a NoneType, must be bool \(\)",
    ),
    "a key as outcome": (
        {"step": stepping(lambda state, step: (state, step._replace(outcome={"key": jax.random.key(0)})))},
        r"the outcome\['key'\] is key<fry>, must be of numbers or bools",
    ),
    "a reward for all": (
        {"reward": lambda agent, outcome: jnp.zeros(4)},
        r"the reward of one agent is float32 \(4,\), must be float32 \(\)",
    ),
    "a reward in words": ({"reward": lambda agent, outcome: "much"}, "the reward of one agent raised TypeError"),
    "a reward that raises": ({"reward": raises}, r"the reward of one agent raised RuntimeError \(no such thing\)"),
    "two ends at once": (
        {"step": stepping(lambda state, step: (state, step._replace(terminated=step.truncated)))},
        "a step is terminated and truncated together",
    ),
}
BROKEN_AGENTS = {
    "a list of numbers": [0.0, 1.0, 2.0, 3.0],
    "a list of dicts": [{"goal": 0.0}, {"goal": 1.0}],
    "no arrays": (),
    "one number": jnp.float32(1.0),
    "words": np.array(["a", "b"]),
    "objects": np.array([None, None], object),
    "different rows": {"a": jnp.zeros(4), "b": jnp.zeros(3)},
    "nobody": jnp.zeros((0, 2)),
}


@pytest.mark.parametrize("name", BROKEN_ENVS)
def test_a_broken_word_is_named_with_the_way_out(name):
    changes, message = BROKEN_ENVS[name]
    with pytest.raises(ConfigError, match=f"^env = toy: {message}") as error:
        make_trainer(*task(**changes), TrainConfig(k=2, n=4), plain_em(2, 4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BROKEN_AGENTS)
def test_agents_that_are_no_rows_of_arrays_are_named(name):
    with pytest.raises(ConfigError, match=r"^population: .* must be a pytree of arrays \(n, ...\), one row an agent"):
        make_trainer(*task(agents=BROKEN_AGENTS[name]), TrainConfig(k=2, n=4), plain_em(2, 4))


@pytest.mark.parametrize("name", ["a list of numbers", "no arrays", "one number"])
def test_the_number_of_such_agents_is_not_known(name):
    with pytest.raises(ConfigError, match=r"^population: agents must be a pytree of arrays \(n, ...\)"):
        Population(BROKEN_AGENTS[name], reward).n  # noqa: B018


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("discount", value) for value in (2.0, -0.1, float("nan"), "high", None, jnp.zeros(2))],
        *[("episode_length", value) for value in (0, -1, 2.5, None, "long", 10**12)],
        *[(name, value) for name in ("observation_size", "action_size") for value in (0, 1.5, None, (3,))],
        *[(name, "no") for name in ("discrete", "finite_horizon", "probe")],
        *[("reference_scale", value) for value in (0.0, -1.0, float("inf"), "wide")],
        *[("observation_limit", value) for value in (0.0, float("nan"))],
        *[(name, value) for name in ("segment_length", "shortest_episode") for value in (0, 1.5, "short")],
        *[(name, 3) for name in ("name", "backend", "options")],
    ],
)
def test_a_spec_with_a_wrong_field_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"^{field} = "):
        check_spec(SPEC._replace(**{field: value}))


def resetting(key_in_state, counts_down=False):
    """The toy that begins anew when it ends: from the same start, or from another."""

    def begin(key):
        x = jax.random.uniform(key, (2,)) if key_in_state else jnp.zeros(2)
        return (State(x, jnp.int32(8 * counts_down)), key), x

    def anew(state, action):
        (inner, key), sign = state, -1 if counts_down else 1
        x, clock = inner.x + 0.1, inner.clock + sign
        over = clock == (0 if counts_down else 8)
        key = jax.random.split(key)[0]
        (fresh, key), _ = begin(key)
        inner = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, State(x, clock))
        return (inner, key), Step(inner.x, inner.x[0], jnp.bool_(False), over)

    return begin, anew


@pytest.mark.parametrize("key_in_state", [False, True])
@pytest.mark.parametrize("counts_down", [False, True])
def test_an_env_that_resets_itself_is_found_out(key_in_state, counts_down):
    begin, anew = resetting(key_in_state, counts_down)
    with pytest.raises(ConfigError, match=r"^env = toy: an episode that ended begins anew by itself"):
        check_env(*task(reset=begin, step=anew))
    check_env(*task(reset=begin, step=anew, spec=SPEC._replace(probe=False)))


def test_coming_home_is_no_reset():
    """A walker between 0 and 4 whose episode ends at home: its place is as at first, and nothing is wrong with that."""

    def begin(key):
        return jnp.int32(0), jnp.zeros(2)

    def walk(place, action):
        place = jnp.clip(place + 2 * action - 1, 0, 4)
        obs = jnp.stack([place.astype(jnp.float32), jnp.float32(0)])
        return place, Step(obs, obs[0], place == 0, jnp.bool_(False))

    check_env(*task(reset=begin, step=walk))


def test_steps_are_played_once_for_all_trainers_of_an_env():
    env, population = task(step=stepping(lambda state, step: (state, step)))
    check_env(env, population)
    hits = _play_known.cache_info().hits
    check_env(env, population)
    assert _play_known.cache_info().hits == hits + 1


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (raises, r"upper_bound\(2\): raised RuntimeError \(no such thing\)"),
        (lambda k: "much", r"upper_bound\(2\) = 'much': must be a finite number, or None"),
        (lambda k: float("nan"), r"upper_bound\(2\) = nan: must be a finite number"),
        (lambda k: [1.0, 2.0], r"upper_bound\(2\) = \[1.0, 2.0\]: must be a finite number"),
        (None, r"upper_bound\(2\): raised TypeError"),
    ],
)
def test_a_bound_that_raises_or_is_none_is_found_out_before_training(bound, message, monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.train.learn", None)
    env, population = make_tiny()
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(env, population._replace(upper_bound=bound), CONFIG, em(2, 4))
    check_knowledge(population._replace(upper_bound=lambda k: np.float32(k)), 2)
    check_knowledge(population, 2)


@pytest.mark.parametrize("reported", [True, False])
def test_a_finite_horizon_that_step_does_not_tell_is_refused(reported):
    def step(clock, action):
        return clock + 1, Step(jnp.zeros(1), jnp.float32(1), jnp.bool_(False), (clock + 1 >= 7) & reported)

    spec = EnvSpec("clock", 1, 2, True, 7, 1.0, 1.0, "jax", finite_horizon=True)
    env = Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step)
    people = Population(jnp.ones(2), lambda agent, paid: agent * paid)
    if reported:
        check_env(env, people)
    else:
        with pytest.raises(ConfigError, match="finite_horizon = True, and an episode goes on after episode_length = 7 steps"):
            check_env(env, people)
