"""Gymnasium's models as an option of the speed tasks: what policies see, one step and falls are those of its environments."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from benchmarks.gymnasium_bodies import load_bodies
from rmdp_jax.envs import gymnasium_models, make
from rmdp_jax.envs.speed import BODIES, body_of, load_body
from rmdp_jax.errors import ConfigError


@pytest.mark.parametrize("body", BODIES)
def test_a_step_is_gymnasiums(body):
    theirs, env = load_bodies(body).theirs, load_body(body, "native", "gymnasium")
    assert float(env.dt) == pytest.approx(theirs.dt)
    np.testing.assert_array_equal(np.asarray(env.sys.init_q), theirs.init_qpos)

    @jax.jit
    def step(q, qd, action):
        state = env.reset(jax.random.PRNGKey(0)).replace(pipeline_state=env.pipeline_init(q, qd))
        after = env.step(state, action)
        return env._get_obs(state.pipeline_state), after.obs, after.pipeline_state.q[0] - q[0], after.done

    seen, generator, falls = theirs.reset(seed=0)[0], np.random.RandomState(0), []
    for _ in range(60):
        q, qd = theirs.data.qpos.copy(), theirs.data.qvel.copy()
        action = generator.uniform(-1, 1, env.action_size)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # brax is not strict
            before, after, way, done = step(*(jnp.asarray(x, jnp.float32) for x in (q, qd, action)))
        np.testing.assert_allclose(before, seen, atol=2e-6 * (1.0 + np.abs(seen).max()))
        seen, _, fallen, _, _ = theirs.step(action)
        assert np.median(np.abs(after - seen) / (1.0 + np.abs(seen))) < 1e-5
        assert way == pytest.approx(theirs.data.qpos[0] - q[0], abs=1e-4)
        assert bool(done) == fallen
        falls.append(fallen)
        if fallen:
            seen, _ = theirs.reset(seed=len(falls))
    assert any(falls) == (body != "halfcheetah")


def test_pictures_show_the_model_of_the_run():
    models = [body_of(make("hopper_speed", n=2, **given)[0].spec).sys.mj_model for given in ({}, {"model": "gymnasium"})]
    assert [mujoco.mjtIntegrator(model.opt.integrator).name for model in models] == ["mjINT_EULER", "mjINT_RK4"]


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
            {"model": "gymnasium", "backend": "mjx"},
            "model = gymnasium: must be brax with backend mjx; others take backend native",
        ),
    ],
)
def test_bad_models_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make("ant_speed", n=3, **options)


def test_without_gymnasium_the_way_out_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(gymnasium_models, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gymnasium, which is not installed; .*'.\[gymnasium\]'; or take model = 'brax'"):
        gymnasium_models.with_model(None, "ant")
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium/__init__.py").touch()
    monkeypatch.undo()
    monkeypatch.setattr(
        gymnasium_models, "find_spec", lambda name: type("Spec", (), {"origin": str(tmp_path / "gymnasium/__init__.py")})
    )
    with pytest.raises(ConfigError, match=r"has no ant.xml; install 1.2 or newer"):
        gymnasium_models.with_model(None, "ant")
