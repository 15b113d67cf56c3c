"""Bodies beside Gymnasium's: what differs, what one step makes of it, and policies that act there."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gymnasium_bodies
from benchmarks.gymnasium_bodies import describe, load_bodies, main, one_step, play
from rmdp_jax.envs.speed import BODIES, load_body

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hopper():
    return load_bodies("hopper")


@pytest.mark.parametrize("body", BODIES)
def test_a_policy_sees_in_both_what_it_learned_from(body):
    bodies = load_bodies(body)
    observed = bodies.theirs.observation_space.shape[0]
    nq, nv = bodies.ours.nq, bodies.ours.nv
    assert (nq, nv, bodies.ours.nu) == (bodies.theirs.model.nq, bodies.theirs.model.nv, bodies.theirs.model.nu)
    assert nq + nv - observed == (2 if body == "ant" else 1)  # x, and y where there is one
    assert bodies.theirs.dt == pytest.approx(float(bodies.ours.opt.timestep) * bodies.frames)
    env = load_body(body, "native")
    q, qd = bodies.ours.qpos0 + 0.01, np.full(nv, 0.1)
    if body == "ant":
        q[3:7] = bodies.ours.qpos0[3:7]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # brax is not strict
        ours = env._get_obs(env.pipeline_init(jnp.asarray(q, jnp.float32), jnp.asarray(qd, jnp.float32)))
    bodies.theirs.set_state(q - bodies.shift, qd)
    np.testing.assert_allclose(bodies.theirs._get_obs(), ours, atol=1e-5)


def test_models_are_told_apart_by_what_differs(hopper):
    ours, theirs = describe(hopper.ours, hopper.frames), describe(hopper.theirs.model, hopper.theirs.frame_skip)
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert different["integrator"] == ("EULER", "RK4")
    assert different["solver iterations"] == (4, 100)
    assert "mass (kg)" not in different
    assert "gears" not in different


def test_the_integrator_is_all_that_a_step_of_hopper_differs_by(hopper):
    model = hopper.theirs.model
    start = [(model.qpos0 + 0.01 * i, np.full(model.nv, 0.1 * i)) for i in range(4)]
    high = {name: difference for name, _, difference in one_step(hopper, start)}
    assert high["as it is"] > 1e-4
    assert high["and our integrator"] < 1e-6
    assert high["our model"] < 1e-6


def test_episodes_end_with_a_fall_and_pay_speed_until_then(hopper):
    def lean(observations, key):
        return jnp.ones((observations.shape[0], hopper.ours.nu))

    played = play(hopper.theirs, lean, episodes=2, steps=200)
    assert played.falls.all()
    assert (played.alive.sum(1) < 200).all()
    assert (np.diff(played.alive.astype(int), axis=1) <= 0).all()  # once over, over
    assert (played.speed[~played.alive] == 0.0).all()
    assert np.abs(played.speed[played.alive]).max() > 0.1


def test_with_gymnasiums_model_a_step_is_its_own():
    bodies = load_bodies("ant", "gymnasium")
    assert describe(bodies.ours, bodies.frames) == describe(bodies.theirs.model, bodies.theirs.frame_skip)
    start = [(bodies.ours.qpos0, np.full(bodies.ours.nv, 0.1 * i)) for i in range(4)]
    assert {name for name, _, difference in one_step(bodies, start) if difference > 1e-5} == set()


def test_a_line_and_a_table_of_a_body(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gymnasium_bodies, "RUNS", tmp_path)
    monkeypatch.setattr("sys.argv", ["gymnasium_bodies", "--quick", "--env", "halfcheetah_speed"])
    main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["falls_in_gymnasium"] == [0.0, 0.0]  # it never ends an episode
    assert line["episode_length_in_gymnasium"] == line["episode_length"] == [100.0, 100.0]
    assert line["model"] == "brax"
    for asked, message in (
        ("--k 3", "k = 2: must be 3 as asked"),
        ("--model gymnasium", "model = brax: must be gymnasium as asked"),
    ):
        run = ["--run", str(tmp_path / "halfcheetah_speed_quick")]
        monkeypatch.setattr("sys.argv", ["gymnasium_bodies", "--env", "halfcheetah_speed", *run, *asked.split()])
        with pytest.raises(SystemExit):
            main()
        assert message in capsys.readouterr().err
    table = (tmp_path / "gymnasium.md").read_text()
    assert "| solver iterations | 4 | 100 |" in table
    assert "| halfcheetah |" in table
