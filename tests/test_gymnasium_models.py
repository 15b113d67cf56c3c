"""Gymnasium's models as an option of the speed tasks: what policies see, one step and falls are those of its environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gymnasium_bodies import load_bodies
from rmdp_jax.envs import gymnasium_models, make
from rmdp_jax.envs.speed import BODIES, load_body
from rmdp_jax.errors import ConfigError


@pytest.mark.parametrize("body", BODIES)
def test_a_step_is_gymnasiums(body):
    theirs, env = load_bodies(body).theirs, load_body(body, "native", "gymnasium")
    assert float(env.dt) == pytest.approx(theirs.dt)

    @jax.jit
    def step(q, qd, action):
        before = env.pipeline_init(q, qd)
        after = env.pipeline_step(before, action)
        return env._get_obs(before), env._get_obs(after), after.q[0] - before.q[0]

    seen, generator, fallen = theirs.reset(seed=0)[0], np.random.RandomState(0), False
    for _ in range(12):
        q, qd = theirs.data.qpos.copy(), theirs.data.qvel.copy()
        action = generator.uniform(-1, 1, env.action_size)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # brax is not strict
            before, after, way = step(*(jnp.asarray(x, jnp.float32) for x in (q, qd, action)))
        np.testing.assert_allclose(before, seen, atol=2e-6)
        seen, _, fallen, _, _ = theirs.step(action)
        assert np.median(np.abs(after - seen) / (1.0 + np.abs(seen))) < 1e-5
        assert way == pytest.approx(theirs.data.qpos[0] - q[0], abs=1e-4)
        if fallen:
            break


def test_it_falls_as_there():
    env, _ = make("hopper_speed", n=2, model="gymnasium")
    state, _ = env.reset(jax.random.key(0))
    step, heights = jax.jit(env.step), []
    for _ in range(200):
        state, told = step(state, jnp.ones(3))
        heights.append(float(told.obs[0]))
        if told.terminated:
            break
    assert told.terminated
    assert heights[0] == pytest.approx(1.25, abs=0.05)
    assert not np.isnan(heights).any()


def test_the_model_is_part_of_the_task():
    env, population = make("ant_speed", n=3, model="gymnasium")
    assert env.spec.options["model"] == "gymnasium"
    assert population.reachable(1) is None, "measured of brax's"
    assert make("ant_speed", n=3)[1].reachable(1) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mujoco"}, r"model = 'mujoco' is not known .known: brax, gymnasium"),
        (
            {"model": "gymnasium", "backend": "spring"},
            "model = gymnasium: must be brax with backend spring; take native, mjx, warp",
        ),
    ],
)
def test_bad_models_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make("ant_speed", n=3, **options)


def test_without_gymnasium_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(gymnasium_models, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"it is not installed; install '.\[gymnasium\]', or take model = 'brax'"):
        gymnasium_models.with_model(None, "ant")
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium/__init__.py").touch()
    monkeypatch.undo()
    monkeypatch.setattr(
        gymnasium_models, "find_spec", lambda name: type("Spec", (), {"origin": str(tmp_path / "gymnasium/__init__.py")})
    )
    with pytest.raises(ConfigError, match=r"has no ant.xml; install 1.2 or newer"):
        gymnasium_models.with_model(None, "ant")
