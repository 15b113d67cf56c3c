from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError
from rmdp_jax.envs.brax_adapter import from_brax, quiet

with quiet():
    from brax import envs


class Counter(envs.Env):
    """A user's env: sums actions, ends above 3; carries a weak type, unread leaves and old keys, as users' envs do."""

    def reset(self, rng):
        start = jax.random.uniform(rng, ())
        info = {"rng": rng, "last_action": jnp.zeros(1), "steps": 0}
        return envs.State({"sum": start}, jnp.array([start, 0.0]), jnp.zeros(()), jnp.zeros(()), {"unread": start}, info)

    def step(self, state, action):
        rng, key = jax.random.split(state.info["rng"])
        total = state.pipeline_state["sum"] + action[0]
        noise = jax.random.uniform(key, ())
        state.info.update(rng=rng, last_action=action, steps=state.info["steps"] + 1)
        state.metrics["unread"] = state.metrics["unread"] + 1
        return state.replace(
            pipeline_state={"sum": total}, obs=jnp.array([total, noise]), done=(total > 3.0).astype(jnp.float32)
        )

    observation_size = 2
    action_size = 1
    backend = "none"


def gain(before, after):
    return after.pipeline_state["sum"] - before.pipeline_state["sum"]


def make(length=4, outcome=gain, env=None, **options):
    facts = {"name": "counter", "episode_length": length, "discount": 0.9, "backend": "none", "reference_scale": 2.0}
    return from_brax(env or Counter(), outcome, **facts, **options)


def abstract(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.tree.map(jax.typeof, tree))


def test_spec():
    spec = make().spec
    assert (spec.name, spec.observation_size, spec.action_size, spec.discrete) == ("counter", 2, 1, False)
    assert (spec.episode_length, spec.discount, spec.reference_scale, spec.backend) == (4, 0.9, 2.0, "none")


def test_state_is_kept_and_small():
    env = make()
    state, obs = env.reset(jax.random.key(0))
    after, step = env.step(state, jnp.ones(1))
    assert abstract(state) == abstract(after)
    assert abstract(obs) == abstract(step.obs)
    # The sum and the key are read by later steps; last action, step count, metrics, reward and done are not.
    assert sorted(str(leaf.dtype) for leaf in state.carried) == ["float32", "uint32"]


def test_outcome_may_look_at_any_leaf_of_the_state_before():
    env = make(outcome=lambda before, after: before.info["last_action"][0])
    state, _ = env.reset(jax.random.key(0))
    state, _ = env.step(state, jnp.array([0.25]))
    _, step = env.step(state, jnp.array([0.5]))
    assert step.outcome == 0.25


def test_termination_truncation_and_outcome():
    env = make()
    state, obs = env.reset(jax.random.key(1))
    ends = []
    for _ in range(4):
        state, step = env.step(state, jnp.array([0.1]))
        ends.append((bool(step.terminated), bool(step.truncated)))
        assert step.outcome == pytest.approx(0.1, abs=1e-6)
    assert ends == [(False, False)] * 3 + [(False, True)]
    assert step.obs[0] == pytest.approx(float(obs[0]) + 0.4, abs=1e-6)
    state, _ = env.reset(jax.random.key(1))
    for action in (0.0, 0.0, 0.0, 5.0):  # falls at the very step at which the clock runs out
        state, step = env.step(state, jnp.array([action]))
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)


def test_batches_and_randomness():
    env = make()
    keys = jax.random.split(jax.random.key(2), (2, 3))
    states, obs = jax.vmap(jax.vmap(env.reset))(keys)
    _, step = jax.vmap(jax.vmap(env.step))(states, jnp.ones((2, 3, 1)))
    assert step.obs.shape == (2, 3, 2)
    assert len(np.unique(obs[..., 0])) == 6
    assert len(np.unique(step.obs[..., 1])) == 6
    single, _ = env.reset(keys[1, 2])
    np.testing.assert_array_equal(env.step(single, jnp.ones(1))[1].obs, step.obs[1, 2])


class Split(Counter):
    """Shows a dict: its parts by name, and a number."""

    def show(self, state):
        total, noise = state.obs
        return state.replace(obs={"total": total[None], "noise": noise, "always": jnp.array([[1, 2]])})

    def reset(self, rng):
        return self.show(super().reset(rng))

    def step(self, state, action):
        return self.show(super().step(state, action))


def test_a_dict_of_observations_is_one_vector_by_sorted_names():
    key = jax.random.key(5)
    plain, split = make(), make(env=Split())
    one = make(env=Split(), observe=lambda obs: obs["noise"])
    assert (split.spec.observation_size, one.spec.observation_size) == (4, 1)
    states, obs = zip(*(env.reset(jax.random.clone(key)) for env in (plain, split, one)), strict=True)
    for _ in range(2):
        total, noise = obs[0]
        np.testing.assert_array_equal(obs[1], jnp.stack([jnp.float32(1), jnp.float32(2), noise, total]))
        np.testing.assert_array_equal(obs[2], noise[None])
        moves = [env.step(state, jnp.ones(1)) for env, state in zip((plain, split, one), states, strict=True)]
        states, obs = [state for state, _ in moves], [step.obs for _, step in moves]


class Grows(Counter):
    def step(self, state, action):
        state = super().step(state, action)
        state.info["new"] = action
        return state


def test_a_step_that_changes_the_structure_of_the_state_is_refused():
    with pytest.raises(ConfigError, match="changes the structure"):
        make(env=Grows())


class Drifts(Counter):
    def reset(self, rng):
        state = super().reset(rng)
        return state.replace(pipeline_state=jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.int32), state.pipeline_state))

    def step(self, state, action):
        after = super().step(state, action)
        return after.replace(pipeline_state=jax.tree.map(lambda x: x + 0.4, after.pipeline_state))


class Keyed(Counter):
    def reset(self, rng):
        state = super().reset(rng)
        state.info["key"] = jax.random.wrap_key_data(rng)
        return state


class Raises(Counter):
    def step(self, state, action):
        raise RuntimeError("no\nsuch thing")


class Renamed(Counter):
    """A wrapper by another name has put its own first state aside."""

    def reset(self, rng):
        state = super().reset(rng)
        state.info["first_obs"] = state.obs
        return state


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Drifts(), r"brax_env: state.* is int32 at first and float32 after a step; let reset give float32"),
        (Keyed(), "brax_env: its state holds a typed key; keep jax.random.key_data of it"),
        (Raises(), r"brax_env: step raised RuntimeError \(no such thing\)"),
        (Renamed(), r"brax_env: its state has info\['first_obs'\] of a wrapper .* take brax.envs.get_environment"),
        (
            envs.create("fast"),
            "brax_env: is wrapped in AutoResetWrapper, which ends, resets or batches episodes by itself; take",
        ),
        (envs.create("fast", auto_reset=False), "brax_env: is wrapped in EpisodeWrapper"),
        (envs.create("fast", episode_length=None, auto_reset=False, batch_size=2), "brax_env: is wrapped in VmapWrapper"),
        (envs.Wrapper(envs.training.EvalWrapper(Counter())), "brax_env: is wrapped in EvalWrapper"),
        ("ant", "brax_env = str: has no reset, so it is no brax.envs.Env"),
        (None, None),
    ],
)
def test_wrappers_that_do_what_is_done_here_are_refused_at_any_depth(env, message):
    if env is None:  # others may stay
        assert make(env=envs.Wrapper(Counter())).spec.observation_size == 2
        return
    with pytest.raises(ConfigError, match=f"^{message}"):
        make(env=env)


class Motor(Counter):
    """A body of which two actuators take -3..1 and any number; its step hands actions on, or scales them itself."""

    action_size = 2

    def __init__(self, scales=False, ranges=((-3.0, 1.0), (-np.inf, np.inf))):
        self.scales, self.sys = scales, SimpleNamespace(actuator=SimpleNamespace(ctrl_range=np.array(ranges)))

    def pipeline_step(self, state, action):
        return {"sum": action}

    def reset(self, rng):
        state = super().reset(rng)
        state.info["last_action"] = jnp.zeros(2)
        return state.replace(pipeline_state={"sum": jnp.zeros(2)})

    def step(self, state, action):
        given = 2.0 * action if self.scales else action
        return state.replace(pipeline_state=self.pipeline_step(state.pipeline_state, given))


class Twice(Motor):
    def step(self, state, action):
        for _ in range(2):
            state = super().step(state, action)
        return state


class Loops(Motor):
    def step(self, state, action):
        def once(carry, _):
            inner, action = carry
            return (self.pipeline_step(inner, action), action), None

        return state.replace(pipeline_state=jax.lax.scan(once, (state.pipeline_state, action), None, length=3)[0][0])


class Scaled(envs.Wrapper):
    def step(self, state, action):
        return self.env.step(state, 5.0 * action)


@pytest.mark.parametrize(
    ("env", "options", "expected"),
    [
        (Motor(), {}, [[-3.0, -1.0], [-1.0, 0.0], [1.0, 1.0]]),
        (Motor(), {"scale_actions": False}, [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]),
        (Motor(scales=True), {}, [[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]]),
        (Motor(ranges=((-1.0, 1.0), (-1.0, 1.0))), {}, [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]),
        (Twice(), {}, [[-3.0, -1.0], [-1.0, 0.0], [1.0, 1.0]]),
        (Loops(), {}, [[-3.0, -1.0], [-1.0, 0.0], [1.0, 1.0]]),
        (Scaled(Motor()), {}, [[-5.0, -5.0], [0.0, 0.0], [5.0, 5.0]]),
        (envs.Wrapper(Motor()), {}, [[-3.0, -1.0], [-1.0, 0.0], [1.0, 1.0]]),
    ],
)
def test_actions_are_scaled_to_what_the_actuators_take_where_the_env_does_not(env, options, expected):
    made = from_brax(
        env,
        lambda before, after: after.pipeline_state["sum"],
        name="motor",
        episode_length=4,
        discount=0.9,
        backend="none",
        **options,
    )
    state, _ = made.reset(jax.random.key(0))
    controls = [made.step(state, jnp.full(2, action))[1].outcome for action in (-1.0, 0.0, 1.0)]
    np.testing.assert_array_equal(controls, expected)
    scaled = expected[0] == [-3.0, -1.0]
    assert made.spec.notes == (("actions in [-1, 1] are scaled to actuators of -3..1",) if scaled else ())


def test_an_action_of_another_shape_is_named_and_whole_numbers_are_taken():
    made = make(env=Counter())
    state, _ = made.reset(jax.random.key(0))
    with pytest.raises(ConfigError, match=r"action of shape \(3,\): must be \(1,\), what counter takes"):
        made.step(state, jnp.zeros(3))
    one, other = made.step(state, jnp.ones(1, int)), made.step(state, jnp.ones(1))
    np.testing.assert_array_equal(one[1].obs, other[1].obs)


def test_it_is_made_in_float32_whatever_jax_says():
    with jax.enable_x64(True):
        made = make(env=Counter())
    state, obs = jax.jit(made.reset)(jax.random.key(0))
    assert jax.jit(made.step)(state, jnp.ones(1))[1].obs.dtype == obs.dtype == jnp.float32


@pytest.mark.parametrize(
    ("field", "value"),
    [("episode_length", 0), ("episode_length", 10**12), ("discount", 2.0), ("scale_actions", 1), ("segment_length", 0)],
)
def test_a_bad_argument_is_refused(field, value):
    options = {"name": "counter", "episode_length": 4, "discount": 0.9, "backend": "none", field: value}
    with pytest.raises(ConfigError, match=f"^{field} = {value}: must be"):
        from_brax(Counter(), gain, **options)
