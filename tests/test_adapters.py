"""Envs of gymnax, jumanji and MuJoCo Playground as they are installed: ends, true successors, actions, what rewards look at."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax import envs as brax_envs

from rmdp_jax import ConfigError, Population
from rmdp_jax.checks import check_env
from rmdp_jax.envs import from_gymnax, from_jumanji, from_playground
from rmdp_jax.envs.adapting import Next, adapted, box, check_successor, choices, flat_observation
from rmdp_jax.envs.brax_checks import physics_settings

PAID = Population(jnp.array([1.0, 2.0]), lambda agent, got: agent * jnp.sum(got["reward"]))


def play(env, actions, key=0):
    """Steps of one episode."""
    advance = jax.jit(env.step)
    state, obs = jax.jit(env.reset)(jax.random.key(key))
    steps = []
    for action in actions:
        state, step = advance(state, jnp.asarray(action))
        steps.append(step)
    return obs, steps


def ends(steps):
    return [(bool(step.terminated), bool(step.truncated)) for step in steps]


def test_observations_of_any_structure_are_one_vector_by_sorted_names():
    observation = {"b": np.array([[1, 2], [3, 4]], np.int8), "a": (jnp.float32(0.5), jnp.array([True, False]))}
    np.testing.assert_array_equal(flat_observation(observation), np.float32([0.5, 1, 0, 1, 2, 3, 4]))
    assert flat_observation(observation).dtype == jnp.float32


def test_several_choices_are_one_of_their_combinations():
    actions = choices(np.array([2, 3]))
    assert (actions.size, actions.discrete) == (6, True)
    given = [tuple(actions.give(jnp.int32(number)).tolist()) for number in range(6)]
    assert given == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert choices(4).give(jnp.int32(3)) == 3
    with pytest.raises(ConfigError, match=r"^actions: 1,000,000,000,000 combinations of 6 choices"):
        choices(np.full(6, 100))


def test_a_box_is_scaled_to_its_finite_ends():
    actions = box(np.float32([[0, -np.inf]]), np.float32([[4, np.inf]]), (1, 2))
    assert (actions.size, actions.discrete, actions.note) == (2, False, "actions in [-1, 1] are scaled to 0..4")
    np.testing.assert_allclose(actions.give(jnp.array([-1.0, 0.5])), [[0.0, 0.5]])
    np.testing.assert_allclose(actions.give(jnp.array([0.5, -1.0])), [[3.0, -1.0]])
    assert box(-1.0, 1.0, (3,)).note == ""
    with pytest.raises(ConfigError, match="actions: one end is finite and the other is not; wrap the env"):
        box(0.0, np.inf, (1,))
    with pytest.raises(ConfigError, match="actions: numbers of int32: must be fractions; wrap the env so that"):
        box(0, 4, (2,), jnp.int32)


def test_an_env_that_writes_into_its_state_shows_what_was_before():
    def advance(state, action):
        state["x"] = state["x"] + 1.0
        false = jnp.bool_(False)
        return Next(state, state["x"], state["x"], false, false, None)

    def moved(happened):
        return happened.after["x"] - happened.before["x"]

    facts = {"name": "writes", "episode_length": 4, "discount": 0.9, "backend": "none"}
    env = adapted(lambda key: ({"x": jnp.float32(0)}, jnp.float32(0)), advance, choices(2), moved, lambda obs: obs, **facts)
    state, _ = env.reset(jax.random.key(0))
    after, step = env.step(state, jnp.int32(0))
    assert (float(step.outcome), float(state.inner["x"]), float(after.inner["x"])) == (1.0, 0.0, 1.0)


class TestGymnax:
    gymnax = property(lambda self: pytest.importorskip("gymnax"))

    def test_a_fall_terminates_and_shows_the_true_successor(self):
        raw, params = self.gymnax.make("CartPole-v1")
        env = from_gymnax(raw, params, lambda t: {"reward": t.reward, "moved": t.after.x - t.before.x})
        check_env(env, PAID)
        spec = env.spec
        assert (spec.name, spec.observation_size, spec.action_size, spec.discrete) == ("CartPole-v1", 4, 2, True)
        assert (spec.episode_length, spec.backend, spec.notes) == (500, "gymnax", ())
        obs, steps = play(env, [1] * 12)
        over = [terminated for terminated, _ in ends(steps)].index(True)
        assert 5 < over < 11
        assert not any(truncated for _, truncated in ends(steps))
        angles = np.array([obs[2], *(step.obs[2] for step in steps)])
        assert abs(angles[over + 1]) > params.theta_threshold_radians > abs(angles[over])  # no auto-reset is in between
        places = np.array([obs[0], *(step.obs[0] for step in steps)])
        np.testing.assert_allclose([step.outcome["moved"] for step in steps], np.diff(places), atol=1e-6)

    @pytest.mark.parametrize("own", [True, False])
    def test_a_time_limit_truncates_whoever_sets_it(self, own):
        raw, params = self.gymnax.make("CartPole-v1")
        params = params.replace(max_steps_in_episode=3) if own else params
        env = from_gymnax(raw, params, episode_length=None if own else 3)
        assert env.spec.episode_length == 3
        assert ends(play(env, [0, 1, 0])[1]) == [(False, False), (False, False), (False, True)]

    def test_actions_of_a_box_reach_the_env_in_its_range(self):
        env = from_gymnax(self.gymnax.make("Pendulum-v1")[0], outcome=lambda t: {"reward": t.reward, "torque": t.action})
        assert env.spec.notes == ("actions in [-1, 1] are scaled to -2..2",)
        _, steps = play(env, [[-1.0], [0.25]])
        np.testing.assert_allclose([step.outcome["torque"] for step in steps], [[-2.0], [0.5]])

    def test_each_episode_and_step_has_its_own_chance(self):
        env = from_gymnax(*self.gymnax.make("BernoulliBandit-misc"))
        seen = [[float(step.outcome["reward"]) for step in play(env, [0] * 16, key)[1]] for key in (0, 1, 2)]
        assert len({tuple(one) for one in seen}) == 3  # of 2^16 rows
        assert {0.0, 1.0} == {paid for one in seen for paid in one}

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            (SimpleNamespace(_env=None), "env = SimpleNamespace: is a wrapper, which gymnax passes by"),
            (SimpleNamespace(step_env=None), "env = SimpleNamespace: has no reset_env, so it is no env of gymnax 1.0"),
        ],
    )
    def test_what_is_no_env_of_it_is_refused(self, env, message):
        with pytest.raises(ConfigError, match=f"^{message}"):
            from_gymnax(env)


class TestJumanji:
    jumanji = property(lambda self: pytest.importorskip("jumanji"))

    def test_the_board_and_its_mask_are_the_observation_and_new_tiles_are_drawn(self):
        raw = self.jumanji.make("Game2048-v1")
        with pytest.raises(ConfigError, match=r"^episode_length: Game2048 has no limit of its own"):
            from_jumanji(raw)
        env = from_jumanji(raw, episode_length=5, observe=lambda seen: {"board": seen.board, "mask": seen.action_mask})
        assert (env.spec.name, env.spec.observation_size, env.spec.action_size) == ("Game2048", 20, 4)
        boards = [play(env, [0, 1, 2, 3, 0], key) for key in (0, 1)]
        assert ends(boards[0][1])[-1] == (False, True)
        assert not np.array_equal(boards[0][1][3].obs, boards[1][1][3].obs)

    def test_a_last_step_with_a_discount_truncates_and_players_choose_together(self):
        raw = self.jumanji.make("LevelBasedForaging-v0", time_limit=2)
        env = from_jumanji(raw)
        assert (env.spec.action_size, env.spec.episode_length) == (36, 2)
        assert env.spec.notes == ("an action is one of the 36 combinations of 2 choices",)
        _, steps = play(env, [0, 0])
        assert ends(steps) == [(False, False), (False, True)]
        assert steps[0].outcome["reward"].shape == (2,)  # one a player, which agents may weigh

    def test_a_last_step_without_a_discount_terminates(self):
        env = from_jumanji(self.jumanji.make("Maze-v0", time_limit=2), episode_length=9)
        assert ends(play(env, [0, 0])[1]) == [(False, False), (True, False)]

    @pytest.mark.parametrize("wrapper", ["AutoResetWrapper", "VmapWrapper"])
    def test_what_resets_or_batches_by_itself_is_refused(self, wrapper):
        from jumanji import wrappers

        wrapped = getattr(wrappers, wrapper)(self.jumanji.make("Maze-v0"))
        with pytest.raises(ConfigError, match=f"^env = {wrapper}: is wrapped in {wrapper}, which resets or batches by itself"):
            from_jumanji(wrapped)
        with pytest.raises(ConfigError, match=r"^env = int: has no reset, so it is no env of jumanji"):
            from_jumanji(3)


class Stand(brax_envs.Env):
    """What an env of Playground is to others: a model of an implementation, a config, dict observations, and a state."""

    observation_size, action_size, backend = 2, 1, "none"

    def __init__(self, **config):
        self._config, self.mjx_model = {"episode_length": 3, **config}, SimpleNamespace(impl=SimpleNamespace(value="jax"))

    def state(self, at):
        obs = {"state": at, "privileged_state": jnp.concatenate([at, at])}
        return brax_envs.State(at, obs, at[0], (at[0] > 2.0).astype(jnp.float32), {}, {})

    def reset(self, rng):
        return self.state(jax.random.uniform(rng, (1,)))

    def step(self, state, action):
        return self.state(state.pipeline_state + action)


class TestPlayground:
    def test_its_config_and_the_actors_part_of_observations_are_taken(self):
        env = from_playground(Stand())
        assert (env.spec.name, env.spec.episode_length, env.spec.observation_size, env.spec.backend) == ("Stand", 3, 1, "mjx")
        obs, steps = play(env, [[0.5], [0.5], [0.5]])
        assert ends(steps) == [(False, False), (False, False), (False, True)] if obs[0] < 0.5 else [(False, False)] * 2
        assert float(steps[0].outcome["reward"]) == pytest.approx(float(obs[0]) + 0.5)
        assert from_playground(Stand(), observe=lambda obs: obs).spec.observation_size == 3

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            (SimpleNamespace(), "env = SimpleNamespace: has no mjx_model, so it is no env of MuJoCo Playground"),
            (Stand(action_repeat=2), "action_repeat = 2: is done by the wrappers of Playground's training"),
            (brax_envs.training.EpisodeWrapper(Stand(), 5, 1), "brax_env: is wrapped in EpisodeWrapper"),
        ],
    )
    def test_what_it_cannot_be_is_refused(self, env, message):
        with pytest.raises(ConfigError, match=f"^{message}"):
            from_playground(env)

    def test_a_state_that_would_lose_its_fractions_is_refused(self):
        given = SimpleNamespace(error=lambda rest: ConfigError(f"env = drift: {rest}"))
        check_successor(given.error, {"x": jnp.int32(1)}, {"x": jax.ShapeDtypeStruct((), jnp.float32)})
        with pytest.raises(
            ConfigError, match=r"env = drift: state\['x'\] is int32 at first and float32 after a step; let reset"
        ):
            check_successor(given.error, {"x": jnp.float32(0.6)}, {"x": jax.ShapeDtypeStruct((), jnp.int32)})

    @pytest.mark.slow
    def test_a_body_of_playground_moves_as_in_playground(self):
        registry = pytest.importorskip("mujoco_playground").registry
        body = registry.load("PendulumSwingup", config_overrides={"impl": "jax"})
        env = from_playground(body)
        obs, steps = play(env, [[0.5]] * 5)
        with physics_settings():
            state = jax.jit(body.reset)(jax.random.key_data(jax.random.key(0)))
        np.testing.assert_array_equal(obs, state.obs)
        move = jax.jit(body.step)
        for step in steps:
            with physics_settings():
                state = move(state, jnp.array([0.5]))
            np.testing.assert_allclose(step.obs, state.obs, atol=1e-5)
            assert step.outcome["reward"] == pytest.approx(float(state.reward), abs=1e-5)
